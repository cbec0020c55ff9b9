"""What the recipes share: training, the export to ONNX, and counting errors in onnxruntime.

Plain SGD with Nesterov momentum, weight decay and a cosine schedule; no augmentation. The seed fixes a run on
one machine; another machine's BLAS may round differently, so a rerun gives an equivalent net, not the same
bytes.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"

_ROWS = 1000  # images in one call of onnxruntime


def options(description: str | None, nets: list[str]) -> argparse.ArgumentParser:
    """The options every recipe has; it adds its own."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("net", choices=sorted(nets))
    parser.add_argument("--out", type=Path, help="the ONNX file; default models/<net>.onnx")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where torch trains, such as cuda")
    return parser


def start(net: Callable[[], nn.Module], seed: int, threads: int) -> nn.Module:
    """Seed torch, set its threads, and make the net."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    return net()


def train(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    lr: float,
    decay: float,
    batch: int,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train in place; the learning rate falls from `lr` to 0 along a cosine, step by step.

    The images go where the net is. `after_step` is called with 1, 2, … after each step; the net may be looked
    at there.
    """
    device = next(net.parameters()).device
    x, y = x.to(device), y.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // batch))
    step = 0
    for epoch in range(epochs):
        start, total = time.perf_counter(), torch.zeros((), device=device)
        for rows in torch.randperm(len(x)).to(device).split(batch):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(rows)
            step += 1
            after_step(step)
        mean = float(total) / len(x)
        print(f"epoch {epoch + 1:2d}  loss {mean:.5f}  {time.perf_counter() - start:.1f} s", flush=True)


def to_onnx(net: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The net as ONNX: opset 18, `input` [batch, ...] -> `logits` [batch, classes]."""
    program = torch.onnx.export(
        copy.deepcopy(net).cpu().eval(),
        (torch.zeros(2, *shape),),
        dynamo=True,
        opset_version=18,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    # The exporter's notes hold stack traces with this machine's paths; none of it is the model.
    del model.metadata_props[:], model.graph.metadata_props[:]
    for entry in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        del entry.metadata_props[:]
        entry.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    return model


def finish(net: nn.Module, shape: tuple[int, ...], path: Path, x: Tensor, y: Tensor) -> None:
    """Write the net to `path`, and say how many images it gets wrong in onnxruntime."""
    onnx.save(to_onnx(net, shape), path)
    wrong = errors(path, x, y)
    print(f"{path}: {sum(p.numel() for p in net.parameters()):,} parameters, {wrong} of {len(y):,} wrong")


def errors(path: Path, x: Tensor, y: Tensor) -> int:
    """Count the images that onnxruntime gets wrong."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = zip(x.split(_ROWS), y.split(_ROWS), strict=True)
    return sum(
        int((session.run(["logits"], {"input": images.numpy()})[0].argmax(1) != labels.numpy()).sum())
        for images, labels in parts
    )
