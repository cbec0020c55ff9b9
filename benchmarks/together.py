"""Units and weights together against weights alone, at the same number of weights and so the same file size.

One row: `python -m benchmarks.together --only lenet_5 --ratio 0.04 --recipe units=0.2`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.accuracy import COLUMNS, compressed_to, figures
from benchmarks.common import Case, Column, Row, Table, run
from benchmarks.subjects import SUBJECTS

TABLE = Table(
    "together",
    "Units and weights together, no fine-tuning",
    "`kept` is the share of all parameters that stay, in every recipe, so that files of one share differ in "
    "bytes by their masks only. `weights` is the default recipe without units; `units=U` first removes that "
    "fraction of the network's units. LeNet-5: 1,000 committed images, all of the MNIST test set; vgglike: "
    "1,000 lossless CIFAR-10 images, 509 lossless test images. No labels.",
    (*COLUMNS, Column("macs", "MACs, measured", ".4f")),
)

_RATIOS = {"lenet_5": (0.08, 0.04, 0.02), "vgglike_cifar10": (0.25, 0.125)}
_RECIPES: dict[str, dict[str, Any]] = {
    "weights": {},
    "units=0.2": {"units": 0.2},
    "units=0.4": {"units": 0.4},
}

CASES = [
    Case(model, ratio, recipe) for model, ratios in _RATIOS.items() for ratio in ratios for recipe in _RECIPES
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One row."""
    subject, given = SUBJECTS[case.model], _RECIPES[case.recipe]
    with TemporaryDirectory() as folder:
        output = Path(folder) / "small.onnx"
        plain = Case(case.model, case.ratio)
        report = compressed_to(output, subject, plain, options, **given)
        row = figures(report, subject, output, options.seed)
    known = report.macs_after is not None and report.macs_before
    return row | {"macs": report.macs_after / report.macs_before if known else None}


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
