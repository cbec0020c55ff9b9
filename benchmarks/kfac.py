"""K-FAC statistics of all layers: seconds beside torch's plain forward and backward pass, and beside peers.

    python -m benchmarks.kfac --only resnet20 --recipe onnxprune curvlinops

Every tool gets the same images and batches and, on a CPU, its own process and one thread; the tools take
turns; a row has the median of five turns, and of the ratios to `torch` in the same turn. On a CPU a process's
own time is counted, so that others disturb little. Loading, export and the first batch, which every tool
needs to set up, stand beside. A peer that is not installed, or cannot do a network, is a row with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import RESULTS, ROOT, Column, Row, Table, environment, merged

sys.path.insert(0, str(ROOT / "models"))  # its recipes import each other by bare names
from nets import LeNet300, ResNet20, vgg11  # isort: skip
from training import to_onnx  # isort: skip

TABLE = Table(
    "kfac",
    "K-FAC statistics of all layers, beside torch's forward + backward",
    "Random weights, Gaussian images; labels sampled from the network's own distribution, one a sample. "
    "`torch` is a forward and backward pass alone, without statistics. Medians of five turns; on a CPU of a "
    "process's own time on one thread, on a GPU of wall time, all in one process.",
    (
        Column("seconds_per_1000", "seconds a 1,000 images", ".3f"),
        Column("times_torch", "times torch", ".2f"),
        Column("setup", "set up, s", ".2f"),
        Column("busy", "GPU busy, %", ".0f"),
    ),
)
_TURNS = 5
_WATCHED = 3.0  # seconds


@dataclass(frozen=True)
class Subject:
    """A network, the shape of an image, how many images and how many at a time."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    images: int
    batch: int


def _layered() -> nn.Module:
    """LeNet-300-100 as a row of modules, which is all that BackPACK knows."""
    net = LeNet300()
    return nn.Sequential(net.fc1, nn.ReLU(), net.fc2, nn.ReLU(), net.fc3)


SUBJECTS = {
    "lenet_300_100": Subject(_layered, (784,), 10_000, 64),
    "resnet20": Subject(ResNet20, (3, 32, 32), 2_000, 64),
    "vgg11": Subject(vgg11, (3, 32, 32), 512, 8),
}
Steps = Iterator[None]


def _images(subject: Subject) -> Tensor:
    shape = (subject.images, *subject.shape)
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def _sampled(logits: Tensor) -> Tensor:
    return torch.multinomial(logits.detach().softmax(1), 1).squeeze(1)


def plain(net: nn.Module, batches: list[Tensor]) -> Steps:
    """Forward and backward pass of one sampled label."""
    for x in batches:
        logits = net(x)
        nn.functional.cross_entropy(logits, _sampled(logits), reduction="sum").backward()
        net.zero_grad()
        yield


def curvlinops(net: nn.Module, batches: list[Tensor]) -> Steps:
    """`KFACLinearOperator`, one Monte Carlo sample."""
    from curvlinops import KFACLinearOperator

    loss, parameters = nn.CrossEntropyLoss(reduction="sum"), list(net.parameters())
    given = {"fisher_type": "mc", "check_deterministic": False, "separate_weight_and_bias": False}
    for x in batches:
        y = torch.zeros(len(x), dtype=torch.long, device=x.device)
        KFACLinearOperator(net, loss, parameters, [(x, y)], **given).compute_kronecker_factors()
        yield


def nngeometry(net: nn.Module, batches: list[Tensor]) -> Steps:
    """`PMatKFAC` of a Monte Carlo sample."""
    from nngeometry.metrics import FIM_MonteCarlo
    from nngeometry.object import PMatKFAC
    from torch.utils.data import DataLoader, TensorDataset

    for x in batches:
        labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        loader = DataLoader(TensorDataset(x, labels), batch_size=len(x))
        FIM_MonteCarlo(net, loader, PMatKFAC, device=x.device)
        yield


def backpack(net: nn.Module, batches: list[Tensor]) -> Steps:
    """BackPACK's `KFAC`, one Monte Carlo sample."""
    from backpack import backpack as running
    from backpack import extend
    from backpack.extensions import KFAC

    net, loss = extend(net), extend(nn.CrossEntropyLoss(reduction="sum"))
    for x in batches:
        logits = net(x)
        with running(KFAC(mc_samples=1)):
            loss(logits, _sampled(logits)).backward()
        net.zero_grad()
        yield


def asdfghjkl(net: nn.Module, batches: list[Tensor]) -> Steps:
    """Its Fisher of a Monte Carlo sample for cross-entropy, as Kronecker factors."""
    from asdl import FISHER_MC, LOSS_CROSS_ENTROPY, SHAPE_KRON, FisherConfig, get_fisher_maker

    maker = get_fisher_maker(net, FisherConfig(FISHER_MC, [SHAPE_KRON], LOSS_CROSS_ENTROPY, data_size=1))
    for x in batches:
        maker.setup_logits_repr(maker.setup_model_call(net, x))
        maker.forward_and_backward()
        yield


TOOLS: dict[str, Callable[[nn.Module, list[Tensor]], Steps]] = {
    "torch": plain,
    "curvlinops": curvlinops,
    "nngeometry": nngeometry,
    "backpack": backpack,
    "asdfghjkl": asdfghjkl,
}
_NAMES = ("onnxprune", *TOOLS)


def by_torch(tool: str, subject: Subject, device: str) -> Row:
    """Seconds an image of a tool built on torch, from the second batch on."""
    torch.manual_seed(0)
    net = subject.make().to(device)
    batches = list(_images(subject).to(device).split(subject.batch))
    start, begun = _now(device), None
    for _ in TOOLS[tool](net, batches):
        begun = begun or _now(device)
    assert begun is not None
    return {"seconds": (_now(device) - begun) / (subject.images - subject.batch), "setup": begun - start}


def by_onnxprune(subject: Subject, device: str) -> Row:
    """Seconds an image of `collect`, from the second batch on."""
    from onnxprune import load
    from onnxprune.data import open_data
    from onnxprune.statistics import Gathering, collect

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(to_onnx(subject.make(), subject.shape).SerializeToString())
        model = load(path)
    data = open_data({"input": _images(subject).numpy()}, model.graph.inputs, batch_size=subject.batch)
    clock, start = Clock(device), _now(device)
    collect(model.ir, model.sha256, data, Gathering(provider=device), clock)  # type: ignore[arg-type]
    assert clock.begun is not None
    images = subject.images - subject.batch
    return {"seconds": (_now(device) - clock.begun) / images, "setup": clock.begun - start}


class Clock:
    """Progress that notes when the first batch was done."""

    def __init__(self, device: str) -> None:
        self.begun: float | None = None
        self._device = device

    def stage(self, name: str, total: int | None) -> Any:
        """Itself, whatever begins."""
        return self

    def __enter__(self) -> Callable[..., None]:
        return self._advance

    def __exit__(self, *problem: object) -> None:
        pass

    def _advance(self, steps: int, note: str = "") -> None:
        self.begun = self.begun or _now(self._device)


def _now(device: str) -> float:
    if device != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def turn(tool: str, net: str, device: str) -> Row:
    """One tool in a process of its own, on one thread."""
    command = [sys.executable, "-m", "benchmarks.kfac"]
    command += ["--run", tool, "--only", net, "--provider", device]
    given = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd=ROOT, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:200]}
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def here(tool: str, net: str, device: str) -> Row:
    """One tool in this process."""
    subject = SUBJECTS[net]
    return by_onnxprune(subject, device) if tool == "onnxprune" else by_torch(tool, subject, device)


def busy(tool: str, net: str) -> float:
    """Percent of the time in which a kernel ran on the GPU, while the tool goes on for some seconds."""
    import pynvml

    pynvml.nvmlInit()
    handle, shares, done = pynvml.nvmlDeviceGetHandleByIndex(0), list[int](), Event()

    def watch() -> None:
        while not done.wait(0.1):
            shares.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    watcher, start = Thread(target=watch), time.perf_counter()
    watcher.start()
    while time.perf_counter() - start < _WATCHED:
        here(tool, net, "cuda")
    done.set()
    watcher.join()
    return float(np.mean(shares[len(shares) // 4 :]))  # NVML's own average is of the second before


def rows_of(net: str, tools: list[str], device: str) -> Iterator[Row]:
    """A row a tool; `torch` is run in every turn. A tool that fails once is not run again."""
    turns: list[dict[str, Row]] = []
    for _ in range(_TURNS):
        failed = {tool for each in turns for tool in each if "error" in each[tool]}
        take = here if device == "cuda" else turn
        turns.append({tool: take(tool, net, device) for tool in tools if tool not in failed})
    for tool in tools:
        row: Row = {"model": net, "ratio": 1.0, "recipe": f"{tool}, {device}"}
        row["environment"] = environment(0, None) | {"torch": torch.__version__}
        own = [each for each in turns if tool in each]
        errors = [each[tool]["error"] for each in own if "error" in each[tool]]
        if errors:
            yield row | {"error": errors[0]}
            continue
        times = [each[tool]["seconds"] / each["torch"]["seconds"] for each in own]
        yield row | {
            "seconds_per_1000": 1000 * median(each[tool]["seconds"] for each in own),
            "times_torch": median(times),
            "spread": [min(times), max(times)],
            "setup": median(each[tool]["setup"] for each in own),
            "busy": busy(tool, net) if device == "cuda" else None,
        }


def main() -> None:
    """Parse the options; run one tool here, or all in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), metavar="NET")
    parser.add_argument("--recipe", nargs="+", choices=_NAMES, default=_NAMES)
    parser.add_argument("--provider", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--run", choices=_NAMES, help="run this one here and print its seconds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.run:
        torch.set_num_threads(1)
        subject, own = SUBJECTS[args.only[0]], args.run == "onnxprune"
        run = by_onnxprune(subject, args.provider) if own else by_torch(args.run, subject, args.provider)
        print(json.dumps(run))
        return
    for net in args.only:
        for row in rows_of(net, list(dict.fromkeys(["torch", *args.recipe])), args.provider):
            TABLE.write(merged(TABLE.read(args.results), row, []), args.results)
            print(net, row["recipe"], row.get("error") or f"{row['times_torch']:.2f} times torch", flush=True)


if __name__ == "__main__":
    main()
