"""Trains LeNet-300-100 and LeNet-5 on MNIST: how the committed `models/lenet_*.onnx` were made.

    python models/train_mnist.py lenet_300_100
    python models/train_mnist.py lenet_5

Plain SGD with momentum, weight decay and a cosine schedule; no augmentation. The seed fixes the run on one
machine; another machine's BLAS may round differently, so a rerun gives an equivalent net, not the same bytes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from nets import LeNet5, LeNet300

ROOT = Path(__file__).resolve().parent.parent
#: name -> (module, the shape of one input, epochs, learning rate)
NETS: dict[str, tuple[type[nn.Module], tuple[int, ...], int, float]] = {
    "lenet_300_100": (LeNet300, (784,), 20, 0.1),
    "lenet_5": (LeNet5, (1, 28, 28), 12, 0.05),
}


def mnist(folder: Path, split: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return all images of a split, scaled to 0..1 and shaped for the net, and their labels."""
    with np.load(folder / f"mnist_{split}.npz") as file:
        images, labels = file["x"], file["y"]
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    return x.reshape(-1, *shape), torch.from_numpy(labels)


def train(net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, lr: float, decay: float, batch: int) -> None:
    """Train in place; the learning rate falls from `lr` to 0 along a cosine, step by step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // batch))
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(x)).split(batch):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1:2d}  loss {total / len(x):.5f}  {seconds:.1f} s", flush=True)


def export(net: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write the net as one ONNX file: opset 18, `input` [batch, ...] -> `logits` [batch, 10]."""
    program = torch.onnx.export(
        net.eval(),
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
    onnx.save(model, path)


def errors(path: Path, x: Tensor, y: Tensor) -> int:
    """Count the images that onnxruntime gets wrong."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": x.numpy()})
    return int((logits.argmax(1) != y.numpy()).sum())


def main() -> None:
    """Parse the options, train, export, measure."""
    parser = argparse.ArgumentParser(description="Train one of the MNIST nets and export it to ONNX.")
    parser.add_argument("net", choices=sorted(NETS))
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared/data/mnist", help="its folder")
    parser.add_argument("--out", type=Path, help="the ONNX file; default models/<net>.onnx")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    module, shape, epochs, lr = NETS[args.net]
    net = module()
    x, y = mnist(args.mnist, "train", shape)
    train(net, x, y, epochs=epochs, lr=lr, decay=args.decay, batch=args.batch)
    out = args.out or ROOT / f"models/{args.net}.onnx"
    export(net, shape, out)
    x, y = mnist(args.mnist, "test", shape)
    wrong = errors(out, x, y)
    print(f"{out}: {sum(p.numel() for p in net.parameters()):,} parameters, {wrong} of {len(y):,} wrong")


if __name__ == "__main__":
    main()
