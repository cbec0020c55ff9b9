"""compress: prune to a budget or to a goal, and fine-tune in turns if asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.aims import Goal, resolve_goal
from onnxprune.cli import parameters
from onnxprune.cli.files import check_preprocess, destination, named_source, source_of
from onnxprune.cli.parameters import FILE, METRIC, MODEL, PREPROCESS, REPORT, SOURCE, fields
from onnxprune.cli.running import DATA_FREE, finish, on_cluster, page_destination, progress_of, warn
from onnxprune.options import resolve

_STATISTICS = "Statistics saved by `calibrate`; give several to merge shards."
_FINETUNE = "Fine-tune for so many epochs after pruning, taught by MODEL; needs torch."
_SCHEDULE = "Prune and fine-tune in turns along falling ratios such as 0.5,0.25,0.125; wants --finetune."
_TRAINING = "Option of `finetune` such as learning-rate=0.01; may be repeated."


@click.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Calibration data, {SOURCE}.  [default: calibration/STEM.npz]")
@click.option("--eval", "evaluation", metavar="SRC", help="Data to measure on.  [default: …/STEM.eval.npz]")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.pruned.onnx beside MODEL]")
@click.option("--stats", "statistics", type=FILE, metavar="FILE", multiple=True, help=_STATISTICS)
@click.option("--finetune", "epochs", type=int, metavar="EPOCHS", help=_FINETUNE)
@click.option("--schedule", type=parameters.ratios, metavar="R,R,…", help=_SCHEDULE)
@click.option("--train-data", metavar="SRC", help="What to fine-tune on.  [default: the calibration data]")
@PREPROCESS
@click.option("--training", type=parameters.setting, metavar="NAME=VALUE", multiple=True, help=_TRAINING)
@click.option("--report", "page", type=FILE, metavar="FILE", help=REPORT)
@METRIC
@parameters.cluster
@fields(*parameters.GOAL, record=Goal, common=False)
@fields(*parameters.COMPRESSION)
def compress(
    model: Path,
    data: str | None,
    evaluation: str | None,
    output: Path | None,
    statistics: tuple[Path, ...],
    epochs: int | None,
    schedule: tuple[float, ...] | None,
    train_data: str | None,
    preprocess: str | None,
    training: tuple[tuple[str, str], ...],
    page: Path | None,
    metric: str | None,
    json: Path | None,
    quiet: bool,
    ray: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Prune MODEL to a share of its parameters, or to a goal, and write it, smaller, as an ONNX file."""
    there = on_cluster(ray, workers, options)
    given = parameters.given(options)
    # wrong options are said before any work
    goal = resolve_goal({name: given.get(name) for name in parameters.GOAL}, given)
    tuning = parameters.tuning(epochs, schedule, train_data, training, statistics, goal)
    if goal is None:
        resolve(**{**({"ratio": schedule[-1]} if schedule else {}), **given})
    check_preprocess(preprocess, data, evaluation, train_data)
    output = output or model.with_name(f"{model.stem}.pruned.onnx")
    inputs = (model, data, evaluation, train_data, *statistics)
    destination(output, *inputs, quiet=quiet)
    destination(json, output, *inputs, quiet=quiet)
    page_destination(page, output, json, *inputs, quiet=quiet)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)
    measured_on = source_of(evaluation, model, "evaluation", preprocess, quiet=quiet)

    from onnxprune import goals, pipeline, staged
    from onnxprune.report import console, terminal

    if source is None:
        terminal.warn(DATA_FREE)
    given |= {"output": output, "evaluation": measured_on, "metric": metric, "progress": progress_of(quiet)}
    with there:
        if tuning is not None:
            training_data = None if train_data is None else named_source(train_data, preprocess)
            result = staged.compress_in_stages(model, source, training_data=training_data, **tuning, **given)
        else:
            prune = pipeline.compress if goal is None else goals.compress_to_goal
            result = prune(model, source, statistics=statistics, **given)
    warn(result.report.warnings)
    finish(result.report, None if quiet else console.print_compression, json, page)
