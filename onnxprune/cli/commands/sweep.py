"""sweep: accuracy against size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import parameters
from onnxprune.cli.files import check_preprocess, destination, source_of
from onnxprune.cli.parameters import FILE, METRIC, MODEL, PREPROCESS, REPORT, SOURCE, fields
from onnxprune.cli.running import DATA_FREE, finish, on_cluster, page_destination, progress_of, warn
from onnxprune.options import RECIPES

_STATISTICS = "Statistics saved by `calibrate`; give several to merge shards."
_RATIOS = "Shares of all parameters to keep, such as 0.5,0.25,10%."
_RECIPES = "Method to compare; may be repeated.  [default: default]"


@click.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Calibration data, {SOURCE}.  [default: calibration/STEM.npz]")
@click.option("--eval", "evaluation", metavar="SRC", help="Data to measure on.  [default: …/STEM.eval.npz]")
@PREPROCESS
@click.option("--stats", "statistics", type=FILE, metavar="FILE", multiple=True, help=_STATISTICS)
@click.option("--ratio", "ratios", type=parameters.ratios, metavar="R,R,…", help=_RATIOS)
@click.option("--units", type=parameters.ratios, metavar="R,R,…", help="Shares of units to remove.")
@click.option("--macs", type=parameters.ratios, metavar="R,R,…", help="Shares of MACs to keep.")
@click.option("--recipe", "recipes", type=click.Choice(list(RECIPES)), multiple=True, help=_RECIPES)
@click.option("--plot", type=FILE, metavar="FILE", help="Draw accuracy over size, as svg, png or pdf.")
@click.option("--report", "page", type=FILE, metavar="FILE", help=REPORT)
@METRIC
@parameters.cluster
@fields(*parameters.SWEEP)
def sweep(
    model: Path,
    data: str | None,
    evaluation: str | None,
    preprocess: str | None,
    statistics: tuple[Path, ...],
    ratios: tuple[float, ...] | None,
    units: tuple[float, ...] | None,
    macs: tuple[float, ...] | None,
    recipes: tuple[str, ...],
    plot: Path | None,
    page: Path | None,
    metric: str | None,
    json: Path | None,
    quiet: bool,
    ray: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Draw the curve of MODEL's accuracy against its size, for several methods from one set of statistics.

    Nothing is written but --json, --plot and --report.
    """
    there = on_cluster(ray, workers, options)
    check_preprocess(preprocess, data, evaluation)
    axes = {"ratio": ratios, "units": units, "macs": macs}
    inputs = (model, data, evaluation, *statistics)
    destination(json, *inputs, quiet=quiet)
    destination(plot, json, *inputs, quiet=quiet)
    page_destination(page, plot, json, *inputs, quiet=quiet)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)
    measured_on = source_of(evaluation, model, "evaluation", preprocess, quiet=quiet)

    from onnxprune.curve import accuracy_curve
    from onnxprune.report import console, terminal
    from onnxprune.report.plot import check_plot, draw

    if plot is not None:
        check_plot(plot)
    if source is None:
        terminal.warn(DATA_FREE)
    with there:
        report = accuracy_curve(
            model,
            source,
            recipes=recipes or ("default",),
            evaluation=measured_on,
            statistics=statistics,
            metric=metric,
            progress=progress_of(quiet),
            **{axis: values for axis, values in axes.items() if values},
            **parameters.given(options),
        )
    warn(report.warnings)
    if plot is not None:
        draw(report, plot)
    finish(report, None if quiet else console.print_sweep, json, page)
