"""Models: every file in ../shared/data/models at half its weights; it runs, or is refused in one sentence.

One row: `python -m benchmarks.models --only 'ch_*' --samples 64`.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.accuracy import COLUMNS, compressed_to, figures
from benchmarks.common import SHARED, Case, Column, Row, Table, run
from benchmarks.subjects import SUBJECTS
from onnxprune.report.schema import CompressionReport, Skipped

TABLE = Table(
    "models",
    "All models at half their weights",
    "Real data where there is any (photos, CIFAR-10, text lines, files), synthetic notes for basic_pitch "
    "and silero; calibrated on one part, measured on the other. `before` is the dense model's figure, "
    "against labels (top1, exact match) or against itself (agreement, cosine). Every file was written, "
    "checked and run in onnxruntime with optimisations off and on: that is the verdict. Refusals have none, "
    "but their sentence.",
    (
        Column("pruned", "layers pruned", "d"),
        Column("of", "of", "d"),
        Column("skipped", "left alone, and why"),
        *COLUMNS,
    ),
)

_NAMES = sorted(path.stem for path in (SHARED / "models").glob("*.onnx") if path.stem in SUBJECTS)
_NO_GRADIENTS = ("silero_vad_16k_op15",)  # refused by default for want of gradients, as the refusal says

CASES = [
    Case(name, 0.5, recipe)
    for name in _NAMES
    for recipe in ("default", *(("wanda",) if name in _NO_GRADIENTS else ()))
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """Compress one model; the file is checked where it is written."""
    subject = SUBJECTS[case.model]
    with TemporaryDirectory() as folder:
        output = Path(folder) / "small.onnx"
        report = compressed_to(output, subject, case, options)
        row = figures(report, subject, output, options.seed)
    return row | layers(report) | {"ok": True}


def layers(report: CompressionReport) -> Row:
    """How many layers lost weights, of how many, and the reasons why others did not."""
    pruned = sum(layer.kept < 1 for layer in report.layers)
    return {"pruned": pruned, "of": len(report.layers), "skipped": summary(report.skipped)}


def summary(skipped: Iterable[Skipped]) -> str:
    """The reasons, most frequent first, with the number of nodes each is about; names are left out."""
    reasons = Counter(_general(entry.reason) for entry in skipped)
    return "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())


def _general(reason: str) -> str:
    """A reason without names in quotes and numbers of units, so that equal ones are equal."""
    named = re.sub(r"'[^']*'|(?<=weight )\S+", "…", reason)
    return re.sub(r"^\d+ units? ", "units ", named)


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
