"""Unpacking: a written file with its pruned weights dense again, for tools that want plain initializers."""

from __future__ import annotations

from pathlib import Path

from onnxprune.data import open_data
from onnxprune.model import Model, read
from onnxprune.output import save
from onnxprune.passes.pack import unpack as make_dense
from onnxprune.report.schema import UnpackReport
from onnxprune.session import Session


def unpack(model: str | Path | Model, output: str | Path) -> UnpackReport:
    """Write `model` with every packed weight as one dense initializer; the rest of the graph stays as it is.

    The file gets larger, and computes the same to the last bit but for the order in which a runtime sums.

    Args:
        model: an ONNX file, or one from `onnxprune.model.read`.
        output: where to write; may be the model's own file.

    Raises:
        ModelError: the file is no model.
        OutputError: it could not be written, or computes something else; nothing is left behind then.
    """
    source = model if isinstance(model, Model) else read(model)
    dense = source.ir.clone()
    make_dense(dense)
    weights = tuple(sorted(dense.graph.initializers.keys() - source.graph.initializers.keys()))
    feeds = next(open_data(None, source.graph.inputs, batch_size=1).batches()).feeds
    outputs = Session(source.ir, "cpu", optimise=False).run(feeds)
    written = save(dense, output, expected=[(feeds, outputs)])
    return UnpackReport(
        model=str(source.path or "model"),
        output=str(output),
        weights=weights,
        bytes_before=source.bytes,
        bytes_after=written,
    )
