"""Trains the CIFAR-10 networks of both papers on the JPEG-recompressed set, which the repository has not.

    python models/train_cifar.py small_conv
    python models/train_cifar.py small_conv --seed 1 --checkpoints FOLDER --every 500

Batches of 64 as in the Mean Replacement paper; its 60 epochs are scaled down to what one core does in
minutes. With `--checkpoints` the net is also written as `FOLDER/<step>.onnx`, before training and every so
many steps.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from cifar_jpeg import images
from nets import cifarnet, medium_conv, small_conv, vgg11
from training import ROOT, SHARED, finish, options, start, to_onnx, train

SHAPE = (3, 32, 32)
#: name -> (net, epochs, learning rate)
NETS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "small_conv": (small_conv, 5, 0.01),
    "medium_conv": (medium_conv, 5, 0.01),
    "vgg11": (vgg11, 5, 0.01),
    "cifarnet": (cifarnet, 10, 0.01),
}


def cifar(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """All images of a split and their labels, as tensors."""
    x, y = images(folder, split)
    return torch.from_numpy(x), torch.from_numpy(y)


def main() -> None:
    """Parse the options, train, export, measure."""
    parser = options(__doc__, list(NETS))
    parser.add_argument("--cifar", type=Path, default=SHARED / "cifar10", help="folder of the JPEG set")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--checkpoints", type=Path, help="folder of the nets on the way")
    parser.add_argument("--every", type=int, default=500, help="steps between two of them")
    args = parser.parse_args()
    make, epochs, lr = NETS[args.net]
    net = start(make, args.seed, args.threads).to(args.device, memory_format=torch.channels_last)
    x, y = cifar(args.cifar, "train")

    def keep(step: int) -> None:
        if args.checkpoints is not None and step % args.every == 0:
            args.checkpoints.mkdir(parents=True, exist_ok=True)
            onnx.save(to_onnx(net, SHAPE), args.checkpoints / f"{step:06d}.onnx")

    keep(0)
    given = {"epochs": args.epochs or epochs, "lr": lr, "decay": args.decay, "batch": args.batch}
    train(net, x, y, **given, after_step=keep)
    finish(net, SHAPE, args.out or ROOT / f"models/{args.net}.onnx", *cifar(args.cifar, "test"))


if __name__ == "__main__":
    main()
