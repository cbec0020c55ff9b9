"""Packing of finished files: pruned weights dense again, for tools that want plain ones, and packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from onnxprune.data import open_data
from onnxprune.errors import ModelError
from onnxprune.model import Model, read
from onnxprune.output import computes_as, save
from onnxprune.passes import pack as packing
from onnxprune.report.schema import PackReport, Repacking, UnpackReport

_LEAST_OPSET = 11  # CumSum and ScatterElements


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
    return UnpackReport(**_repacked(_opened(model), output, _made_dense).model_dump())


def pack(model: str | Path | Model, output: str | Path) -> PackReport:
    """Write `model` with every weight packed that has enough zeros to get smaller by it.

    `compress` has done so already; this is for what other tools made of its result, such as int8. The file
    computes the same: a runtime rebuilds the weights when it loads them.

    Args:
        model: as for `unpack`.
        output: as for `unpack`.

    Raises:
        ModelError: the file is no model, or one of an opset below 11, which has no operators to rebuild with.
        OutputError: as for `unpack`.
    """
    source = _opened(model)
    if source.opset_before < _LEAST_OPSET:
        raise ModelError(
            f"{source.path or 'model'}: opset {source.opset_before} cannot rebuild packed weights, "
            f"{_LEAST_OPSET} can; convert it with onnx.version_converter"
        )
    return PackReport(**_repacked(source, output, _made_sparse).model_dump())


def _opened(model: str | Path | Model) -> Model:
    return model if isinstance(model, Model) else read(model)


def _made_dense(model: ir.Model) -> set[str]:
    before = set(model.graph.initializers)
    packing.unpack(model)
    return model.graph.initializers.keys() - before


def _made_sparse(model: ir.Model) -> set[str]:
    return set(packing.pack(model).packed)


def _repacked(source: Model, output: str | Path, change: Callable[[ir.Model], set[str]]) -> Repacking:
    changed = source.ir.clone()
    weights = tuple(sorted(change(changed)))
    feeds = next(open_data(None, source.graph.inputs, batch_size=1).batches()).feeds
    return Repacking(
        model=str(source.path or "model"),
        output=str(output),
        weights=weights,
        bytes_before=source.bytes,
        bytes_after=save(changed, output, expected=computes_as(source.ir, feeds)),
    )
