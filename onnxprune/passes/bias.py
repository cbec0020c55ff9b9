"""Add a constant to the outputs of a linear node: into the bias it has, or with one it gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.edits import fresh_name, set_input
from onnxprune.units.linear import Linear
from onnxprune.units.ties import constant, given

Array = npt.NDArray[Any]


def add_to_bias(layer: Linear, delta: Array) -> None:
    """Add `delta`, [groups, outputs] or of that size, to what `layer.node` gives, in place.

    A Conv or Gemm without bias gets one. For a MatMul the bias is the constant of the Add behind it; where
    there is none, an Add is put there. So it is with a Conv or Gemm whose bias is computed.
    """
    node = layer.node
    terms = delta.reshape(-1, *[1] * layer.depth)
    if node.op_type == "MatMul":
        if not _add_behind(node, terms):
            _insert_add(node, terms, layer)
    elif given(node, 2) and constant(node.inputs[2]) is None:
        _insert_add(node, terms, layer)
    elif node.op_type == "Gemm":
        _add_to_input(node, 2, terms, layer, scale=node.attributes.get_float("beta", 1.0))
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    else:
        _add_to_input(node, 2, terms, layer)


def _add_behind(node: ir.Node, terms: Array) -> bool:
    """Add to the constant of the only reader, if that is an Add with one."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.op_type != "Add":
        return False
    reader = uses[0].node
    array = constant(reader.inputs[1 - uses[0].idx])
    # an Add that broadcasts the product to something larger is no bias
    same_rank = reader.outputs[0].shape is not None and output.shape is not None
    if array is None or not same_rank or len(reader.outputs[0].shape or ()) != len(output.shape or ()):
        return False
    set_input(reader, 1 - uses[0].idx, (array.astype(np.float64) + terms).astype(array.dtype))
    return True


def _add_to_input(node: ir.Node, index: int, terms: Array, layer: Linear, scale: float = 1.0) -> None:
    old = constant(node.inputs[index]) if given(node, index) else None
    summed = terms if old is None else old.astype(np.float64) * scale + terms
    set_input(node, index, summed.astype(layer.matrix.dtype))


def _insert_add(node: ir.Node, terms: Array, layer: Linear) -> None:
    """Put an Add with a constant behind `node`; the sum takes over the name and the readers of its output."""
    graph, old = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    spatial = len(old.shape or ()) - 2 if node.op_type == "Conv" else 0
    total = ir.Value(name=old.name, shape=old.shape, type=old.type)
    add = ir.Node("", "Add", [old, None], outputs=[total], name=fresh_name(graph, f"{node.name}.bias"))
    old.replace_all_uses_with(total, replace_graph_outputs=True)
    add.replace_input_with(0, old)
    old.name = fresh_name(graph, f"{old.name}.product")
    graph.insert_after(node, add)
    set_input(add, 1, terms.reshape(*terms.shape, *[1] * spatial).astype(layer.matrix.dtype))
