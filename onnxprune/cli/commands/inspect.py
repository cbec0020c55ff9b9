"""inspect: layers, units, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.files import destination
from onnxprune.cli.parameters import FILE, MODEL, REPORT, fields
from onnxprune.cli.running import finish, page_destination

_SENSITIVITY = "Statistics saved by `calibrate`: how sensitive layers and units are; several are merged."


@click.command()
@MODEL
@click.option("--stats", "statistics", type=FILE, metavar="FILE", multiple=True, help=_SENSITIVITY)
@click.option("--html", "page", type=FILE, metavar="FILE", help=REPORT)
@fields()
def inspect(
    model: Path, statistics: tuple[Path, ...], page: Path | None, json: Path | None, quiet: bool
) -> None:
    """Show the layers of MODEL, what can be pruned, and what cannot with the reason."""
    destination(json, model, *statistics, quiet=quiet)
    page_destination(page, json, model, *statistics, quiet=quiet)

    from onnxprune.report import console
    from onnxprune.report.inspection import inspect_model

    finish(inspect_model(model, statistics), None if quiet else console.print_inspection, json, page)
