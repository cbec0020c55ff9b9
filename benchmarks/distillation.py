"""Label-free fine-tuning: networks made smaller, then taught by the dense one on images without labels.

    python -m benchmarks.distillation --only resnet20_cifar10 --ratio 0.5 --recipe "macs, 5,085 lossless"

`macs` removes units until the ratio of the multiplications is left, `weights` sparsifies to the ratio of all
parameters. Photos and CIFAR-10 in JPEG need Pillow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import SHARED, Case, Column, Row, Table, compressed_by_command, run
from benchmarks.subjects import SUBJECTS, Split, cifar
from models.cifar_jpeg import images as recompressed

TABLE = Table(
    "distillation",
    "Fine-tuning without labels, ten epochs",
    "`compress --finetune 10`, the dense network as teacher, no labels, default options. "
    "Measured on images that are neither calibrated nor trained on: 509 lossless test images of CIFAR-10, or "
    "250 sample photos. The recipe says what is made small and what is trained on: `5,085 lossless`, all "
    "original training images here; `50,000 JPEG`, the recompressed ones, on which these networks are ten "
    "points worse; `250 photos`, those that are calibrated on. `moved`: with `--training shift=4` (photos: "
    "16) and `mirror=true`.",
    (
        Column("before", "dense, %", ".2f"),
        Column("pruned", "pruned, %", ".2f"),
        Column("after", "tuned, %", ".2f"),
        Column("kept", "parameters kept", ".4f"),
        Column("macs", "MACs kept", ".4f"),
        Column("seconds", "seconds", ".0f"),
    ),
)

Images = npt.NDArray[Any]

_EPOCHS = 10
_RESNETS = ("resnet20_cifar10", "resnet56_cifar10")
_PHOTO_NETS = ("mobilenetv2_100_224", "efficientnet_lite0_224_bn")
CASES = [
    Case(net, ratio, f"{what}, {images}")
    for net in _RESNETS
    for images in ("5,085 lossless", "5,085 lossless, moved", "50,000 JPEG")
    for what, ratio in (("macs", 0.5), ("weights", 0.1))
] + [
    Case(net, ratio, f"weights, 250 photos{moved}")
    for net in _PHOTO_NETS
    for moved in ("", ", moved")
    for ratio in (0.5, 0.25)
]
_MOVED = {"5,085 lossless": 4, "50,000 JPEG": 4, "250 photos": 16}  # pixels


def _lossless(split: Split) -> Images:
    return cifar(0, count=5085).calibration["x"]


def _recompressed(split: Split) -> Images:
    return np.ascontiguousarray(recompressed(SHARED / "cifar10", "train")[0])


_TRAINED_ON: dict[str, Callable[[Split], Images]] = {
    "5,085 lossless": _lossless,
    "50,000 JPEG": _recompressed,
    "250 photos": lambda split: split.calibration["x"],
}


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One run of the command line."""
    subject = SUBJECTS[case.model]
    what, images = case.recipe.removesuffix(", moved").split(", ", 1)
    split = subject.split(options.seed)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        test = split.evaluation
        np.savez(folder / "calibration.npz", input=split.calibration["x"])
        np.savez(folder / "train.npz", input=_TRAINED_ON[images](split))
        np.savez(folder / "test.npz", input=test["x"], labels=test["labels"])
        arguments = [subject.path, "--macs" if what == "macs" else "--ratio", str(case.ratio)]
        arguments += ["--finetune", str(_EPOCHS), "--seed", str(options.seed)]
        arguments += ["--data", folder / "calibration.npz", "--train-data", folder / "train.npz"]
        if case.recipe.endswith(", moved"):
            arguments += ["--training", f"shift={_MOVED[images]}", "--training", "mirror=true"]
        found = compressed_by_command(*arguments, "--eval", folder / "test.npz")
    (stage,) = found["stages"]
    return {
        "before": 100 * found["metric"]["before"],
        "pruned": 100 * stage["pruned"],
        "after": 100 * stage["tuned"],
        "kept": found["kept_ratio"],
        "macs": found["macs_after"] / found["macs_before"],
    }


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
