"""unpack: packed weights as plain ones."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.files import destination
from onnxprune.cli.parameters import FILE, MODEL, fields
from onnxprune.cli.running import finish


@click.command()
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

    finish(make_dense(model, output), None if quiet else console.print_packing, json)
