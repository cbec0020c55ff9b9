"""One row of an accuracy table: compress a subject, write it, measure before and after on other data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import Case, Column, Row, within
from benchmarks.scores import exact_match
from benchmarks.subjects import SUBJECTS, Split, Subject
from onnxprune import compress
from onnxprune.evaluate import evaluate
from onnxprune.report.schema import CompressionReport

COLUMNS = (
    Column("metric", "metric"),
    Column("before", "before, %", ".2f"),
    Column("after", "after, %", ".2f"),
    Column("lost", "points lost", ".2f"),
    Column("nonzero_ratio", "kept, measured", ".4f"),
    Column("bytes_before", "bytes before", ",d"),
    Column("bytes_after", "bytes after", ",d"),
    Column("seconds", "seconds", ".0f"),
    Column("note", "note"),
)

_TEXT = "exact match"


def compressed(case: Case, options: argparse.Namespace) -> Row:
    """Run the package on `case`; the bar is on the points lost."""
    subject = SUBJECTS[case.model]
    with TemporaryDirectory() as folder:
        output = Path(folder) / "small.onnx"
        report = compressed_to(output, subject, case, options)
        row = figures(report, subject, output, options.seed)
    return row | {"ok": within(row["lost"], case.bar)}


def compressed_to(
    output: Path, subject: Subject, case: Case, options: argparse.Namespace, **given: Any
) -> CompressionReport:
    """Compress `subject` into `output`, measured on all of its evaluation data by the package itself."""
    split = split_of(case.model, options.seed)
    return compress(
        subject.path,
        split.calibration,
        output=output,
        evaluation=None if _is_text(split) else split.evaluation,
        recipe=case.recipe,
        ratio=case.ratio,
        samples=options.samples,
        seed=options.seed,
        **given,
    ).report


def figures(report: CompressionReport, subject: Subject, output: Path, seed: int) -> Row:
    """The columns above; accuracies in percent, other figures of merit times 100."""
    split = split_of(subject.path.stem, seed)
    if _is_text(split):
        name, before = _TEXT, _text_before(subject.path, seed)
        after = exact_match(output, subject.path, split.evaluation)
    else:
        assert report.metric is not None  # measured whenever it is asked for
        name, before, after = report.metric.name, report.metric.before, report.metric.after
    return {
        "metric": name,
        "before": round(100 * before, 3),
        "after": round(100 * after, 3),
        "lost": round(100 * (before - after), 3),
        "nonzero_ratio": report.kept_ratio,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "data": split.words,
        "stages": report.seconds,
    }


def edited(
    case: Case, options: argparse.Namespace, edit: Callable[[Path, float, Path], float], source: str
) -> Row:
    """The same row for a baseline: `edit(model, ratio, output)` writes a file and returns what it kept."""
    subject = SUBJECTS[source]
    labelled = split_of(source, options.seed).evaluation
    with TemporaryDirectory() as folder:
        output = Path(folder) / "small.onnx"
        kept = edit(subject.path, case.ratio, output)
        before, after = (100 * evaluate(path, labelled).values["top1"] for path in (subject.path, output))
    figures = {"metric": "top1", "before": round(before, 3), "after": round(after, 3)}
    return figures | {"lost": round(before - after, 3), "nonzero_ratio": kept, "note": f"file: {source}"}


def stated(after: float, note: str) -> Row:
    """The same row for a figure that somebody else measured."""
    return {"metric": "top1", "after": after, "note": note}


@cache
def split_of(name: str, seed: int) -> Split:
    """The data of a subject, prepared once for all of its rows."""
    return SUBJECTS[name].split(seed)


@cache
def _text_before(path: Path, seed: int) -> float:
    return exact_match(path, path, split_of(path.stem, seed).evaluation)


def _is_text(split: Split) -> bool:
    labels: Mapping[str, Any] = split.evaluation
    return "labels" in labels and labels["labels"].dtype.kind == "U"
