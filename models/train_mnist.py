"""Trains LeNet-300-100 and LeNet-5 on MNIST: how the committed `models/lenet_*.onnx` were made.

python models/train_mnist.py lenet_300_100
python models/train_mnist.py lenet_5
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nets import LeNet5, LeNet300
from training import ROOT, SHARED, finish, options, start, train

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


def main() -> None:
    """Parse the options, train, export, measure."""
    parser = options(__doc__, list(NETS))
    parser.add_argument("--mnist", type=Path, default=SHARED / "mnist", help="its folder")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    args = parser.parse_args()
    module, shape, epochs, lr = NETS[args.net]
    net = start(module, args.seed, args.threads).to(args.device)
    x, y = mnist(args.mnist, "train", shape)
    train(net, x, y, epochs=args.epochs or epochs, lr=lr, decay=args.decay, batch=args.batch)
    finish(net, shape, args.out or ROOT / f"models/{args.net}.onnx", *mnist(args.mnist, "test", shape))


if __name__ == "__main__":
    main()
