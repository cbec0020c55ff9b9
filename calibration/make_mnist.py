"""Draws the small MNIST sets that are committed beside this file, for LeNet-300-100 and LeNet-5.

    python calibration/make_mnist.py

For each net, `<net>.npz` holds 1,000 training images to calibrate with and `<net>.eval.npz` 2,000 test images
to measure with: `input`, float32 exactly as the model wants it (pixel/255), and `labels`, int64. Every run
gives the same bytes: the rows come from a seeded generator, and the archive carries no dates.
"""

import argparse
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
#: The shape of one input.
SHAPES = {"lenet_300_100": (784,), "lenet_5": (1, 28, 28)}


def draw(source: Path, count: int, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Return `count` random rows of an MNIST file, in random order, as the arrays to store."""
    with np.load(source) as file:
        images, labels = file["x"], file["y"]
    rows = np.random.default_rng(seed).choice(len(images), count, replace=False)
    return {
        "input": (images[rows].astype(np.float32) / np.float32(255)).reshape(count, *shape),
        "labels": labels[rows].astype(np.int64),
    }


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description="Draw the MNIST calibration and evaluation sets.")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared/data/mnist", help="its folder")
    parser.add_argument("--out", type=Path, default=ROOT / "calibration")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for net, shape in SHAPES.items():
        calibration = draw(args.mnist / "mnist_train.npz", 1000, shape, args.seed)
        evaluation = draw(args.mnist / "mnist_test.npz", 2000, shape, args.seed)
        np.savez_compressed(args.out / f"{net}.npz", **calibration)
        np.savez_compressed(args.out / f"{net}.eval.npz", **evaluation)


if __name__ == "__main__":
    main()
