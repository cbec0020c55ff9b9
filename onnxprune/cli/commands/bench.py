"""bench: models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import parameters
from onnxprune.cli.files import check_preprocess, destination, named_source
from onnxprune.cli.parameters import FILE, NOISE, PREPROCESS, SOURCE, fields
from onnxprune.cli.running import finish, progress_of

_BATCH = "Samples a call; may be repeated.  [default: 1]"


@click.command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", metavar="SRC", help=f"What to run on, {SOURCE}.  [default: {NOISE}]")
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
    from onnxprune.report import console, terminal

    source = None if data in (None, NOISE) else named_source(data, preprocess)
    report = measure(models, source, progress=progress_of(quiet), **parameters.given(options))
    for remark in () if quiet else report.notes:
        terminal.note(remark)
    finish(report, None if quiet else console.print_bench, json)
