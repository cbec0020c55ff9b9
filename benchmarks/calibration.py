"""K-FAC statistics of all layers: seconds beside torch's plain forward and backward pass, and beside peers.

    python -m benchmarks.calibration --only resnet20 --recipe onnxprune torch curvlinops
    python -m benchmarks.calibration --provider cuda

Every tool gets a process of its own, the same images and batches, one thread (on a CPU), and the tools take
turns; a row has the median of five turns, and of the ratios to `torch` in the same turn. Loading, export and
the first batch, which every tool needs to set up, are not counted.
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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import RESULTS, ROOT, Column, Row, Table, environment, merged

sys.path.insert(0, str(ROOT / "models"))  # its recipes import each other by bare names
from nets import LeNet300, resnet20, vgg11
from training import to_onnx

TABLE = Table(
    "calibration",
    "K-FAC statistics of all layers, beside torch's forward + backward",
    "Random weights, Gaussian images; labels sampled from the network's own distribution, one a sample. `torch` "
    "is a forward and backward pass alone, without statistics. Medians of five turns.",
    (
        Column("seconds_per_1000", "seconds a 1,000 images", ".3f"),
        Column("times_torch", "times torch", ".2f"),
        Column("setup", "set up, s", ".2f"),
        Column("busy", "GPU busy, %", ".0f"),
    ),
)
_TURNS = 5


@dataclass(frozen=True)
class Subject:
    """A network, the shape of an image, how many images and how many at a time."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    images: int
    batch: int


SUBJECTS = {
    "lenet_300_100": Subject(LeNet300, (784,), 10_000, 64),
    "resnet20": Subject(resnet20, (3, 32, 32), 2_000, 64),
    "vgg11": Subject(vgg11, (3, 32, 32), 512, 8),
}
Steps = Iterator[None]


def _images(subject: Subject) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).standard_normal((subject.images, *subject.shape)).astype(np.float32)
    )


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
    """`KFACLinearOperator`, one Monte Carlo sample, batch by batch."""
    from curvlinops import KFACLinearOperator

    loss = nn.CrossEntropyLoss(reduction="sum")
    parameters = dict(net.named_parameters())
    for x in batches:
        y = torch.zeros(len(x), dtype=torch.long, device=x.device)
        kfac = KFACLinearOperator(
            net,
            loss,
            parameters,
            [(x, y)],
            fisher_type="mc",
            check_deterministic=False,
            separate_weight_and_bias=False,
        )
        kfac.compute_kronecker_factors()
        yield


def nngeometry(net: nn.Module, batches: list[Tensor]) -> Steps:
    """`PMatKFAC` of a sampled label."""
    from nngeometry.generator.jacobian import Jacobian
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatKFAC

    layers = LayerCollection.from_model(net)

    def seen(*given: Tensor) -> Tensor:
        logits = net(given[0])
        return nn.functional.log_softmax(logits, 1).gather(1, _sampled(logits)[:, None])

    for x in batches:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=len(x))
        PMatKFAC(layers, Jacobian(model=net, function=seen, n_output=1), examples=loader)
        yield


def backpack(net: nn.Module, batches: list[Tensor]) -> Steps:
    """BackPACK's `KFAC`, one Monte Carlo sample."""
    from backpack import backpack as running
    from backpack import extend
    from backpack.extensions import KFAC

    net, loss = extend(net, use_converter=True), extend(nn.CrossEntropyLoss(reduction="sum"))
    for x in batches:
        logits = net(x)
        with running(KFAC(mc_samples=1)):
            loss(logits, _sampled(logits)).backward()
        net.zero_grad()
        yield


def asdfghjkl(net: nn.Module, batches: list[Tensor]) -> Steps:
    """`fisher_for_cross_entropy`, Monte Carlo, Kronecker factors."""
    from asdfghjkl import FISHER_MC, SHAPE_KRON, fisher_for_cross_entropy

    for x in batches:
        y = torch.zeros(len(x), dtype=torch.long, device=x.device)
        fisher_for_cross_entropy(net, FISHER_MC, SHAPE_KRON, inputs=x, targets=y)
        yield


TOOLS: dict[str, Callable[[nn.Module, list[Tensor]], Steps]] = {
    "torch": plain,
    "curvlinops": curvlinops,
    "nngeometry": nngeometry,
    "backpack": backpack,
    "asdfghjkl": asdfghjkl,
}


def by_torch(tool: str, subject: Subject, device: str) -> Row:
    """Seconds of a tool built on torch, from the second batch on."""
    torch.manual_seed(0)
    net = subject.make().to(device)
    batches = list(_images(subject).to(device).split(subject.batch))
    start, begun = time.perf_counter(), None
    for _ in TOOLS[tool](net, batches):
        if begun is None:
            _wait(device)
            begun = time.perf_counter()
    _wait(device)
    assert begun is not None
    images = subject.images - len(batches[0])
    return {"seconds": (time.perf_counter() - begun) / images, "setup": begun - start}


def by_onnxprune(subject: Subject, device: str) -> Row:
    """Seconds of `collect`, from the second batch on."""
    from onnxprune import load
    from onnxprune.data import open_data
    from onnxprune.statistics import Gathering, collect

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(to_onnx(subject.make(), subject.shape).SerializeToString())
        model = load(path)
    clock = _Clock()
    data = open_data({"input": _images(subject).numpy()}, model.graph.inputs, batch_size=subject.batch)
    start = time.perf_counter()
    collect(model.ir, model.sha256, data, Gathering(provider=device), clock)  # type: ignore[arg-type]
    assert clock.begun is not None
    images = subject.images - subject.batch
    return {"seconds": (time.perf_counter() - clock.begun) / images, "setup": clock.begun - start}


class _Clock:
    """Progress that notes when the first batch was done."""

    begun: float | None = None

    def stage(self, name: str, total: int | None) -> Any:
        return self

    def __enter__(self) -> Callable[..., None]:
        return self._advance

    def __exit__(self, *problem: object) -> None:
        pass

    def _advance(self, steps: int, note: str = "") -> None:
        self.begun = self.begun or time.perf_counter()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def turn(tool: str, net: str, device: str) -> Row:
    """One tool in a process of its own, on one thread."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.calibration",
        "--run",
        tool,
        "--only",
        net,
        "--provider",
        device,
    ]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | threads, cwd=ROOT, check=False
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:200]}
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def rows_of(net: str, tools: list[str], device: str) -> Iterator[Row]:
    """A row a tool; `torch` is run in every turn."""
    turns = [{tool: turn(tool, net, device) for tool in tools} for _ in range(_TURNS)]
    for tool in tools:
        row: Row = {
            "model": net,
            "ratio": 1.0,
            "recipe": f"{tool}, {device}",
            "environment": environment(0, None),
        }
        errors = [each[tool]["error"] for each in turns if "error" in each[tool]]
        if errors:
            yield row | {"error": errors[0]}
            continue
        seconds = [each[tool]["seconds"] for each in turns]
        times = [each[tool]["seconds"] / each["torch"]["seconds"] for each in turns]
        yield row | {
            "seconds_per_1000": 1000 * median(seconds),
            "times_torch": median(times),
            "spread": [min(times), max(times)],
            "setup": median(each[tool]["setup"] for each in turns),
        }


def main() -> None:
    """Parse the options; run one tool, or all in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), metavar="NET")
    parser.add_argument("--recipe", nargs="+", choices=["onnxprune", *TOOLS], default=["onnxprune", *TOOLS])
    parser.add_argument("--provider", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--run", choices=["onnxprune", *TOOLS], help="run this one here and print its seconds"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.run:
        torch.set_num_threads(1)
        subject = SUBJECTS[args.only[0]]
        of = (
            by_onnxprune(subject, args.provider)
            if args.run == "onnxprune"
            else by_torch(args.run, subject, args.provider)
        )
        print(json.dumps(of))
        return
    tools = list(dict.fromkeys(["torch", *args.recipe]))
    for net in args.only:
        for row in rows_of(net, tools, args.provider):
            TABLE.write(merged(TABLE.read(args.results), row, []), args.results)
            print(net, row["recipe"], row.get("error") or f"{row['times_torch']:.2f} times torch", flush=True)


if __name__ == "__main__":
    main()
