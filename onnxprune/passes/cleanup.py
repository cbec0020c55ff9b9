"""Cleanup: what the other passes left behind goes; names and the model's interface stay.

Unused nodes and initializers are dropped, equal large initializers of the main graph stored once.
"""

from __future__ import annotations

import hashlib

import onnx_ir as ir

from onnxprune.normalise.unused import RemoveUnused

_WORTHWHILE = 64  # bytes; two names for one small constant cost nothing and read better


def cleanup(model: ir.Model) -> ir.Model:
    """Clean `model` in place and return it; running it twice changes nothing."""
    RemoveUnused()(model)
    _share_equal_initializers(model.graph)
    return model


def _share_equal_initializers(graph: ir.Graph) -> None:
    """Keep the first of every set of equal initializers; graph outputs keep theirs."""
    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _WORTHWHILE or tensor.dtype == ir.DataType.STRING:
            continue
        key = (tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest())
        kept = first.setdefault(key, value)
        if kept is not value and not value.is_graph_output():
            value.replace_all_uses_with(kept)
            del graph.initializers[name]
