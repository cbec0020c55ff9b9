"""Units removed without training: every score with every replacement, and units together with weights.

One row: `python -m benchmarks.units --only resnet20_cifar10 --recipe kfac+linear`.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.accuracy import COLUMNS, figures, split_of
from benchmarks.common import Case, Column, Row, Table, run, within
from benchmarks.subjects import SUBJECTS
from onnxprune import calibrate, compress
from onnxprune.evaluate import evaluate
from onnxprune.options import Replacement, Score
from onnxprune.statistics import Statistics

TABLE = Table(
    "units",
    "Units removed to a share of the MACs, no training",
    "`kept` is the share of the multiply-accumulates that stays. Recipe: score + replacement; kfac+linear is "
    "the default. CIFAR-10 networks are calibrated on 1,000 lossless training images and measured on the 509 "
    "lossless test images (one is 0.2 points); ImageNet networks on halves of the 500 sample photos, "
    "PP-OCR rec on rendered text lines. No labels are used, but by first-order scores where the calibration "
    "data has them (here it has none). The bar: points of accuracy below the dense model.",
    (*COLUMNS, Column("macs", "MACs, measured", ".4f")),
)

_SHARES = {
    "resnet56_cifar10": (0.5, 2.7),
    "resnet20_cifar10": (0.5, 11.0),
    "vgglike_cifar10": (0.5, None),
    "mobilenetv2_100_224": (0.6667, None),
    "efficientnet_lite0_224_bn": (0.6667, None),
    "ch_PP-OCRv4_rec_infer": (0.6667, None),
}
_ALL = [f"{score}+{replace}" for score in Score.__args__ for replace in Replacement.__args__]  # type: ignore[attr-defined]
DEFAULT = "kfac+linear"

CASES = [
    Case(model, share, recipe, bar if recipe == DEFAULT else None)
    for model, (share, bar) in _SHARES.items()
    for recipe in _ALL
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """The row of one score with one replacement; statistics are gathered once a model."""
    subject, split = SUBJECTS[case.model], split_of(case.model, options.seed)
    score, _, replace = case.recipe.partition("+")
    text = case.model.startswith("ch_PP")
    with TemporaryDirectory() as folder:
        output = Path(folder) / "small.onnx"
        report = compress(
            subject.path,
            split.calibration,
            output=output,
            evaluation=None if text else split.evaluation,
            statistics=_statistics(case.model, options.seed, options.samples),
            macs=case.ratio,
            score=score,
            replace=replace,
            samples=options.samples,
            seed=options.seed,
        ).report
        row = figures(report, subject, output, options.seed)
        loss = None if text else evaluate(output, split.evaluation).values.get("loss")
    share = None if report.macs_after is None else report.macs_after / (report.macs_before or 1)
    return row | {"macs": share, "loss": loss, "ok": within(row["lost"], case.bar)}


@cache
def _statistics(model: str, seed: int, samples: int | None) -> Statistics:
    split = split_of(model, seed)
    return calibrate(SUBJECTS[model].path, split.calibration, samples=samples, seed=seed)


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
