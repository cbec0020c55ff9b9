"""calibrate: statistics once, for several ratios or from several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import parameters
from onnxprune.cli.files import check_preprocess, destination, source_of
from onnxprune.cli.parameters import FILE, MODEL, PREPROCESS, SOURCE, fields
from onnxprune.cli.running import DATA_FREE, finish, on_cluster, progress_of


@click.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Calibration data, {SOURCE}.  [default: calibration/STEM.npz]")
@PREPROCESS
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.stats beside MODEL]")
@parameters.cluster
@fields(*parameters.CALIBRATION)
def calibrate(
    model: Path,
    data: str | None,
    preprocess: str | None,
    output: Path | None,
    json: Path | None,
    quiet: bool,
    ray: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Collect statistics of MODEL once, to compress it with several ratios."""
    there = on_cluster(ray, workers, options)
    check_preprocess(preprocess, data)
    output = output or model.with_name(f"{model.stem}.stats")
    destination(output, model, data, quiet=quiet)
    destination(json, output, model, data, quiet=quiet)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)

    from onnxprune import pipeline
    from onnxprune.report import console, terminal
    from onnxprune.report.calibration import summarise

    if source is None:
        terminal.warn(DATA_FREE)
    given = parameters.given(options)
    with there:
        statistics = pipeline.calibrate(model, source, output=output, progress=progress_of(quiet), **given)
    finish(summarise(statistics, model, output), None if quiet else console.print_calibration, json)
