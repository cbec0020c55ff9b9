"""Weightless: a model as protobuf for onnx's own C++ functions, without its large weights.

Those functions take serialised models of at most 2 GiB and need shapes, not weights. Initializers of the main
graph above 1 kB therefore become graph inputs; smaller ones (axes, shapes, scales) stay, their values matter.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

_SMALL = 1024  # bytes; every axes, pads, scales or shape operand fits


def weightless(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.Value]]:
    """The protobuf of `model` with its large initializers as extra inputs, and those initializers."""
    clone = model.clone()
    taken = []
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _SMALL or value.is_graph_output() or value.name is None:
            continue
        stand_in = clone.graph.initializers.pop(value.name)
        stand_in.const_value = None
        stand_in.shape = ir.Shape(tensor.shape.numpy())
        stand_in.dtype = tensor.dtype
        if not stand_in.is_graph_input():
            clone.graph.inputs.append(stand_in)
        taken.append(value)
    return ir.to_proto(clone), taken
