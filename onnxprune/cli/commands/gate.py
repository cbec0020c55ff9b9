"""gate: finished models held to limits, for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.aims import Limits, resolve_limits
from onnxprune.cli import parameters
from onnxprune.cli.files import append_text, check_preprocess, destination, source_of
from onnxprune.cli.parameters import FILE, METRIC, NOISE, PREPROCESS, SOURCE, fields
from onnxprune.cli.running import finish, progress_of
from onnxprune.errors import GateError, UsageError

_DATA = f"What --min-metric and --max-drop are measured on, {SOURCE}.  [default: calibration/STEM.eval.npz]"
_COMPRESSION = "What `compress --json` wrote of MODEL: before and after, in the summary."
_SUMMARY = "Append the result to this file, as Markdown.  [default: $GITHUB_STEP_SUMMARY, if set]"


@click.command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@fields(*parameters.LIMITS, record=Limits, common=False)
@click.option("--reference", type=FILE, metavar="FILE", help="The dense model, to compare with.")
@click.option("--data", "--eval", "data", metavar="SRC", help=_DATA)
@PREPROCESS
@METRIC
@click.option("--compression", type=FILE, metavar="FILE", help=_COMPRESSION)
@click.option("--summary", type=FILE, metavar="FILE", envvar="GITHUB_STEP_SUMMARY", help=_SUMMARY)
@fields(*parameters.EVALUATION)
def gate(
    models: tuple[Path, ...],
    reference: Path | None,
    data: str | None,
    preprocess: str | None,
    metric: str | None,
    compression: Path | None,
    summary: Path | None,
    json: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Hold every MODEL to limits, and exit with 3 if one fails.

    Bytes are those of the file and its external data. Figures of merit are measured anew, on the same data
    for all models and the reference; docs/ci.md has recipes.
    """
    given = parameters.given(options)
    limits = resolve_limits(**{name: given.get(name) for name in parameters.LIMITS})
    if compression is not None and len(models) > 1:
        raise UsageError("--compression is of one model; leave it out, or name that MODEL only")
    check_preprocess(preprocess, data)
    inputs = (*models, reference, data, compression)
    destination(json, *inputs, quiet=quiet)
    destination(summary, json, *inputs, quiet=True)  # it is not replaced
    source = None
    if limits.measured:
        source = source_of(data, reference or models[0], "evaluation", preprocess, quiet=quiet)
        if source is None and data != NOISE:
            raise UsageError("no data to measure on; give it with --data FILE")

    from onnxprune.gate import gate as check
    from onnxprune.report import gate as reporting
    from onnxprune.report import terminal

    given |= {"reference": reference, "data": source, "metric": metric}
    report = check(models, progress=progress_of(quiet), **given)
    before = None if compression is None else reporting.read_compression(compression, report)
    for remark in () if quiet else report.notes:
        terminal.note(remark)
    finish(report, None if quiet else reporting.print_gate, json)
    if summary is not None:
        append_text(summary, reporting.markdown(report, before))
    if not report.held:
        raise GateError(reporting.failure(report))
