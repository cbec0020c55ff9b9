"""The commands: parse, call the library, print. What they can do, the library can.

Everything heavy is imported inside them, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import parameters
from onnxprune.cli.files import (
    check_preprocess,
    destination,
    is_first_process,
    named_source,
    source_of,
    write_json,
    write_text,
)
from onnxprune.cli.parameters import FILE, METRIC, MODEL, NOISE, PREPROCESS, fields
from onnxprune.cli.program import Program, command_line, show_version
from onnxprune.errors import UsageError
from onnxprune.options import RECIPES, Goal, Training, resolve, resolve_goal, resolve_training

if TYPE_CHECKING:
    from pydantic import BaseModel

    from onnxprune.progress import Progress

_SOURCE = f"a file, a folder, module:object, or '{NOISE}'"
_STATISTICS = "Statistics saved by `calibrate`; give several to merge shards."
_BATCH = "Samples a call; may be repeated.  [default: 1]"
_EVALUATION = "Data to measure on; the best epoch is kept.  [default: …/STEM.eval.npz]"
_CHECKPOINT = "Where to save the state; if it is there, go on.  [default: OUTPUT's stem.checkpoint]"
_FINETUNE = "Fine-tune for so many epochs after pruning, taught by MODEL; needs torch."
_SCHEDULE = "Prune and fine-tune in turns along falling ratios such as 0.5,0.25,0.125; wants --finetune."
_TRAINING = "Option of `finetune` such as learning-rate=0.01; may be repeated."
_REPORT = "Write the result as a page to look at (HTML); needs `pip install 'onnxprune[report]'`."
_SENSITIVITY = "Statistics saved by `calibrate`: how sensitive layers and units are; several are merged."
_RATIOS = "Shares of all parameters to keep, such as 0.5,0.25,10%."
_RECIPES = "Method to compare; may be repeated.  [default: default]"
_DATA_FREE = "data-free: random noise instead of data costs accuracy; give real data with --data"


@click.group(cls=Program)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=show_version)
def main() -> None:
    """Make ONNX models smaller by pruning: no training framework, only onnxruntime."""


@main.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Calibration data, {_SOURCE}.  [default: calibration/STEM.npz]")
@click.option("--eval", "evaluation", metavar="SRC", help="Data to measure on.  [default: …/STEM.eval.npz]")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.pruned.onnx beside MODEL]")
@click.option("--stats", "statistics", type=FILE, metavar="FILE", multiple=True, help=_STATISTICS)
@click.option("--finetune", "epochs", type=int, metavar="EPOCHS", help=_FINETUNE)
@click.option("--schedule", type=parameters.ratios, metavar="R,R,…", help=_SCHEDULE)
@click.option("--train-data", metavar="SRC", help="What to fine-tune on.  [default: the calibration data]")
@PREPROCESS
@click.option("--training", type=parameters.setting, metavar="NAME=VALUE", multiple=True, help=_TRAINING)
@click.option("--report", "page", type=FILE, metavar="FILE", help=_REPORT)
@METRIC
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
    **options: Any,
) -> None:
    """Prune MODEL to a share of its parameters, or to a goal, and write it, smaller, as an ONNX file."""
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
    _page_destination(page, output, json, *inputs, quiet=quiet)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)
    measured_on = source_of(evaluation, model, "evaluation", preprocess, quiet=quiet)

    from onnxprune import goals, pipeline, staged
    from onnxprune.report import console

    if source is None:
        console.warn(_DATA_FREE)
    given |= {"output": output, "evaluation": measured_on, "metric": metric, "progress": _progress(quiet)}
    if tuning is not None:
        training_data = None if train_data is None else named_source(train_data, preprocess)
        result = staged.compress_in_stages(model, source, training_data=training_data, **tuning, **given)
    else:
        prune = pipeline.compress if goal is None else goals.compress_to_goal
        result = prune(model, source, statistics=statistics, **given)
    for warning in result.report.warnings:
        if not warning.startswith("data-free"):  # said above, before the work
            console.warn(warning)
    _finish(result.report, None if quiet else console.print_compression, json, page)


@main.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Calibration data, {_SOURCE}.  [default: calibration/STEM.npz]")
@click.option("--eval", "evaluation", metavar="SRC", help="Data to measure on.  [default: …/STEM.eval.npz]")
@PREPROCESS
@click.option("--stats", "statistics", type=FILE, metavar="FILE", multiple=True, help=_STATISTICS)
@click.option("--ratio", "ratios", type=parameters.ratios, metavar="R,R,…", help=_RATIOS)
@click.option("--units", type=parameters.ratios, metavar="R,R,…", help="Shares of units to remove.")
@click.option("--macs", type=parameters.ratios, metavar="R,R,…", help="Shares of MACs to keep.")
@click.option("--recipe", "recipes", type=click.Choice(list(RECIPES)), multiple=True, help=_RECIPES)
@click.option("--plot", type=FILE, metavar="FILE", help="Draw accuracy over size, as svg, png or pdf.")
@METRIC
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
    metric: str | None,
    json: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw the curve of MODEL's accuracy against its size, for several methods from one set of statistics.

    Nothing is written but --json and --plot.
    """
    check_preprocess(preprocess, data, evaluation)
    axes = {"ratio": ratios, "units": units, "macs": macs}
    inputs = (model, data, evaluation, *statistics)
    destination(json, *inputs, quiet=quiet)
    destination(plot, json, *inputs, quiet=quiet)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)
    measured_on = source_of(evaluation, model, "evaluation", preprocess, quiet=quiet)

    from onnxprune.curve import accuracy_curve
    from onnxprune.report import console
    from onnxprune.report.plot import check_plot, draw

    if plot is not None:
        check_plot(plot)
    if source is None:
        console.warn(_DATA_FREE)
    report = accuracy_curve(
        model,
        source,
        recipes=recipes or ("default",),
        evaluation=measured_on,
        statistics=statistics,
        metric=metric,
        progress=_progress(quiet),
        **{axis: values for axis, values in axes.items() if values},
        **parameters.given(options),
    )
    for warning in report.warnings:
        if not warning.startswith("data-free"):  # said above
            console.warn(warning)
    if plot is not None:
        draw(report, plot)
    _finish(report, None if quiet else console.print_sweep, json)


@main.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Calibration data, {_SOURCE}.  [default: calibration/STEM.npz]")
@PREPROCESS
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.stats beside MODEL]")
@fields(*parameters.CALIBRATION)
def calibrate(
    model: Path,
    data: str | None,
    preprocess: str | None,
    output: Path | None,
    json: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Collect statistics of MODEL once, to compress it with several ratios."""
    check_preprocess(preprocess, data)
    output = output or model.with_name(f"{model.stem}.stats")
    destination(output, model, data, quiet=quiet)
    destination(json, output, model, data, quiet=quiet)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)

    from onnxprune import pipeline
    from onnxprune.report import console
    from onnxprune.report.calibration import summarise

    if source is None:
        console.warn(_DATA_FREE)
    given = parameters.given(options)
    statistics = pipeline.calibrate(model, source, output=output, progress=_progress(quiet), **given)
    _finish(summarise(statistics, model, output), None if quiet else console.print_calibration, json)


@main.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Data, {_SOURCE}.  [default: calibration/STEM.eval.npz]")
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
    from onnxprune.report import console

    given = parameters.given(options) | {"reference": reference, "metric": metric}
    metrics = measure(model, source, progress=_progress(quiet), **given)
    for remark in () if quiet else metrics.notes:
        console.note(remark)
    _finish(metrics, None if quiet else console.print_metrics, json)


@main.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Training data, {_SOURCE}.  [default: calibration/STEM.npz]")
@click.option("--eval", "evaluation", metavar="SRC", help=_EVALUATION)
@PREPROCESS
@click.option("--teacher", type=FILE, metavar="FILE", help="Model to learn from, such as the dense one.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.tuned.onnx beside MODEL]")
@click.option("--checkpoint", type=FILE, metavar="FILE", help=_CHECKPOINT)
@click.option("--report", "page", type=FILE, metavar="FILE", help=_REPORT)
@fields(*parameters.TRAINING, record=Training)
def finetune(
    model: Path,
    data: str | None,
    evaluation: str | None,
    preprocess: str | None,
    teacher: Path | None,
    output: Path | None,
    checkpoint: Path | None,
    page: Path | None,
    json: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Train the weights that MODEL has left; pruned ones stay zero. Needs torch.

    From labels, or without any from a teacher. With several GPUs: torchrun --nproc-per-node N -m onnxprune
    finetune …
    """
    given = parameters.given(options)
    resolve_training(**given)  # wrong options are said before any work
    check_preprocess(preprocess, data, evaluation)
    first = is_first_process()
    quiet = quiet or not first
    output = output or model.with_name(f"{model.stem}.tuned.onnx")
    inputs = (model, data, evaluation, teacher)
    destination(output, *inputs, quiet=quiet)
    checkpoint = checkpoint or output.with_name(f"{output.stem}.checkpoint")
    destination(checkpoint, output, *inputs, quiet=True)
    destination(json, output, checkpoint, *inputs, quiet=quiet)
    _page_destination(page, output, checkpoint, json, *inputs, quiet=quiet)
    if checkpoint.exists() and not quiet:
        click.echo(f"note: going on from {checkpoint}", err=True)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)
    if source is None and data != NOISE:
        raise UsageError("no training data; give it with --data FILE")
    measured_on = source_of(evaluation, model, "evaluation", preprocess, quiet=quiet)

    from onnxprune.finetune import train
    from onnxprune.report import console

    if source is None and first:
        console.warn(_DATA_FREE)
    result = train(
        model,
        source,
        output=output,
        evaluation=measured_on,
        teacher=teacher,
        checkpoint=checkpoint,
        progress=_progress(quiet),
        **given,
    )
    for warning in result.report.warnings if first else ():
        if not warning.startswith("data-free"):  # said above
            console.warn(warning)
    if first:
        _finish(result.report, None if quiet else console.print_finetuning, json, page)


@main.command()
@MODEL
@click.option("--stats", "statistics", type=FILE, metavar="FILE", multiple=True, help=_SENSITIVITY)
@click.option("--html", "page", type=FILE, metavar="FILE", help=_REPORT)
@fields()
def inspect(
    model: Path, statistics: tuple[Path, ...], page: Path | None, json: Path | None, quiet: bool
) -> None:
    """Show the layers of MODEL, what can be pruned, and what cannot with the reason."""
    destination(json, model, *statistics, quiet=quiet)
    _page_destination(page, json, model, *statistics, quiet=quiet)

    from onnxprune.report import console
    from onnxprune.report.inspection import inspect_model

    _finish(inspect_model(model, statistics), None if quiet else console.print_inspection, json, page)


@main.command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", metavar="SRC", help=f"What to run on, {_SOURCE}.  [default: {NOISE}]")
@PREPROCESS
@click.option("--batch", "batch_sizes", type=int, multiple=True, help=_BATCH)
@click.option("--runs", type=int, help="Calls of every model that are timed.  [default: 50]")
@click.option("--threads", type=int, help="Threads of onnxruntime.  [default: one a processor]")
@fields("provider")
def bench(
    models: tuple[Path, ...],
    data: str | None,
    preprocess: str | None,
    json: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure models side by side: latency, memory, load time, size. The first is the reference."""
    check_preprocess(preprocess, data)
    destination(json, *models, data, quiet=quiet)

    from onnxprune.bench import bench as measure
    from onnxprune.report import console

    source = None if data in (None, NOISE) else named_source(data, preprocess)
    report = measure(models, source, progress=_progress(quiet), **parameters.given(options))
    for remark in () if quiet else report.notes:
        console.note(remark)
    _finish(report, None if quiet else console.print_bench, json)


@main.command()
@MODEL
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.unpacked.onnx beside MODEL]")
@fields()
def unpack(model: Path, output: Path | None, json: Path | None, quiet: bool) -> None:
    """Make the packed weights of MODEL plain dense ones, for tools that look for those."""
    output = output or model.with_name(f"{model.stem}.unpacked.onnx")
    destination(output, quiet=quiet)
    destination(json, output, model, quiet=quiet)

    from onnxprune.report import console
    from onnxprune.unpacking import unpack as make_dense

    _finish(make_dense(model, output), None if quiet else console.print_unpacking, json)


def _page_destination(page: Path | None, *taken: Path | str | None, quiet: bool) -> None:
    """Refuse, before any work, a page that cannot be made or written."""
    if page is None:
        return
    from onnxprune.report import html

    html.require()
    destination(page, *taken, quiet=quiet)


def _finish(record: BaseModel, show: Any, json: Path | None, page: Path | None = None) -> None:
    if "command" in type(record).model_fields:
        record = record.model_copy(update={"command": command_line()})
    if show is not None:
        show(record)
    if json is not None:
        write_json(json, record)
    if page is not None:
        from onnxprune.report import html

        write_text(page, html.page(record))


def _progress(quiet: bool) -> Progress | None:
    if quiet or not sys.stderr.isatty():
        return None
    from onnxprune.report.console import ConsoleProgress

    return ConsoleProgress()
