"""Networks during training: made once by `models/train_cifar.py`, kept in a cache outside the repository.

`<cache>/<net>/seed<N>/<step>.onnx`, every half of an epoch, and `trained.onnx`, which says that all are
there.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, SHARED
from benchmarks.subjects import Arrays
from models.cifar_jpeg import images

CACHE = Path.home() / ".cache" / "onnxprune" / "checkpoints"
EVERY = 391  # steps of 64 images: half of an epoch


def checkpoints(net: str, seed: int, folder: Path = CACHE) -> dict[int, Path]:
    """The files by step, 0 (untrained) included; trained first where they are not in the cache."""
    own = folder / net / f"seed{seed}"
    if not (own / "trained.onnx").exists():
        command = [sys.executable, str(ROOT / "models" / "train_cifar.py"), net, "--seed", str(seed)]
        given = ["--checkpoints", own, "--every", EVERY, "--out", own / "trained.onnx", "--threads", 1]
        subprocess.run([*command, *map(str, given)], check=True)
    return {int(path.stem): path for path in sorted(own.glob("[0-9]*.onnx"))}


@cache
def sample(split: str, count: int, seed: int) -> Arrays:
    """`count` images of a split of the JPEG set, drawn by the seed, with their labels."""
    folder = SHARED / "cifar10"
    with np.load(folder / f"cifar10_{split}_jpegpack.npz") as file:
        total = len(file["y"])
    x, y = images(folder, split, np.random.default_rng(seed).choice(total, count, replace=False))
    return {"x": np.ascontiguousarray(x), "labels": y}
