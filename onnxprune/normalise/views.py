"""Views: a Gather that takes everything in order is a Reshape, and says so.

torch exports `as_strided` of a contiguous tensor as Reshape to one axis and a Gather of all its indices,
0, 1, 2, …, in the new shape. Nothing moves, but behind a Gather nobody can tell which channel is which.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.edits import add_initializer, take_place


class GatherInOrderIsReshape(ir.passes.InPlacePass):
    """Replaces Gather along the only axis of a value, of all indices in order, by Reshape to their shape."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """One walk; the indices' shape becomes an initializer."""
        found = [node for node in model.graph if _in_order(node)]
        for node in found:
            data, indices = node.inputs
            assert indices is not None and indices.shape is not None
            shape = np.array(indices.shape.numpy(), dtype=np.int64)
            value = add_initializer(model.graph, f"{node.name}.shape", shape)
            take_place(ir.node("Reshape", [data, value], name=node.name), node)
        return ir.passes.PassResult(model, bool(found))


def _in_order(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.domain != "" or node.attributes.get_int("axis", 0) not in (0, -1):
        return False
    data, indices = node.inputs
    if data is None or data.shape is None or len(data.shape) != 1 or data.dtype is None:
        return False
    constant = indices.const_value if indices is not None else None
    if constant is None or constant.size != data.shape[0] or not data.dtype.is_floating_point():
        return False
    taken = constant.numpy().ravel()
    return bool((taken == np.arange(taken.size)).all())
