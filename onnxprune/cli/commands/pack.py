"""pack: weights with many zeros packed, as `compress` does it."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.files import destination
from onnxprune.cli.parameters import FILE, MODEL, fields
from onnxprune.cli.running import finish


@click.command()
@MODEL
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: STEM.packed.onnx beside MODEL]")
@fields()
def pack(model: Path, output: Path | None, json: Path | None, quiet: bool) -> None:
    """Pack the weights of MODEL that have many zeros, such as a pruned and quantised model's."""
    output = output or model.with_name(f"{model.stem}.packed.onnx")
    destination(output, quiet=quiet)
    destination(json, output, model, quiet=quiet)

    from onnxprune.report import console
    from onnxprune.unpacking import pack as make_sparse

    finish(make_sparse(model, output), None if quiet else console.print_packing, json)
