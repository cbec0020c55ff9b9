"""evaluate: accuracy, or closeness to another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import parameters
from onnxprune.cli.files import check_preprocess, destination, source_of
from onnxprune.cli.parameters import FILE, METRIC, MODEL, NOISE, PREPROCESS, SOURCE, fields
from onnxprune.cli.running import finish, progress_of
from onnxprune.errors import UsageError


@click.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Data, {SOURCE}.  [default: calibration/STEM.eval.npz]")
@PREPROCESS
@click.option("--reference", type=FILE, metavar="FILE", help="Model to compare with, such as the dense one.")
@METRIC
@fields(*parameters.EVALUATION)
def evaluate(
    model: Path,
    data: str | None,
    preprocess: str | None,
    reference: Path | None,
    metric: str | None,
    json: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure MODEL against the labels of the data, against another model, or by a metric of your own."""
    check_preprocess(preprocess, data)
    destination(json, model, data, reference, quiet=quiet)
    source = source_of(data, model, "evaluation", preprocess, quiet=quiet)
    if source is None and data != NOISE:
        raise UsageError("no evaluation data; give it with --data FILE")

    from onnxprune.evaluate import evaluate as measure
    from onnxprune.report import console, terminal

    given = parameters.given(options) | {"reference": reference, "metric": metric}
    metrics = measure(model, source, progress=progress_of(quiet), **given)
    for remark in () if quiet else metrics.notes:
        terminal.note(remark)
    finish(metrics, None if quiet else console.print_metrics, json)
