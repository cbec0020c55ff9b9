"""finetune: train what a model has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import parameters
from onnxprune.cli.files import check_preprocess, destination, is_first_process, source_of
from onnxprune.cli.parameters import FILE, MODEL, NOISE, PREPROCESS, REPORT, SOURCE, fields
from onnxprune.cli.running import DATA_FREE, finish, page_destination, progress_of, warn
from onnxprune.errors import UsageError
from onnxprune.options import Training, resolve_training

_EVALUATION = "Data to measure on; the best epoch is kept.  [default: …/STEM.eval.npz]"
_CHECKPOINT = "Where to save the state; if it is there, go on.  [default: OUTPUT's stem.checkpoint]"


@click.command()
@MODEL
@click.option("--data", metavar="SRC", help=f"Training data, {SOURCE}.  [default: calibration/STEM.npz]")
@click.option("--eval", "evaluation", metavar="SRC", help=_EVALUATION)
@PREPROCESS
@click.option("--teacher", type=FILE, metavar="FILE", help="Model to learn from, such as the dense one.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.tuned.onnx beside MODEL]")
@click.option("--checkpoint", type=FILE, metavar="FILE", help=_CHECKPOINT)
@click.option("--report", "page", type=FILE, metavar="FILE", help=REPORT)
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
    page_destination(page, output, checkpoint, json, *inputs, quiet=quiet)
    if checkpoint.exists() and not quiet:
        click.echo(f"note: going on from {checkpoint}", err=True)
    source = source_of(data, model, "calibration", preprocess, quiet=quiet)
    if source is None and data != NOISE:
        raise UsageError("no training data; give it with --data FILE")
    measured_on = source_of(evaluation, model, "evaluation", preprocess, quiet=quiet)

    from onnxprune.finetune import train
    from onnxprune.report import console, terminal

    if source is None and first:
        terminal.warn(DATA_FREE)
    result = train(
        model,
        source,
        output=output,
        evaluation=measured_on,
        teacher=teacher,
        checkpoint=checkpoint,
        progress=progress_of(quiet),
        **given,
    )
    warn(result.report.warnings if first else ())
    if first:
        finish(result.report, None if quiet else console.print_finetuning, json, page)
