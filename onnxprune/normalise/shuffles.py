"""Shuffles: a Reshape, Transpose, Reshape that only reorders one axis is a Gather of that axis, and says so.

A channel shuffle takes groups × channels apart and puts channels × groups together again. As it stands every
group must lose the same channels; as a Gather each index is on its own, and any of them can go.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.edits import add_initializer, take_place

_LARGEST = 2**20  # elements of one sample that are counted through


class ShuffleIsGather(ir.passes.InPlacePass):
    """Replaces Reshape, Transpose, Reshape between equal shapes by Gather along the axis they reorder."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """One walk; the order becomes an initializer."""
        found = [
            (chain, order) for node in model.graph if (chain := _chain(node)) and (order := _order(chain))
        ]
        for chain, (axis, indices) in found:
            first, last = chain[0], chain[-1]
            value = add_initializer(model.graph, f"{last.name}.order", indices)
            take_place(ir.node("Gather", [first.inputs[0], value], {"axis": axis}, name=last.name), *chain)
        return ir.passes.PassResult(model, bool(found))


def _chain(last: ir.Node) -> list[ir.Node] | None:
    """Reshape, Transpose and the Reshape `last`, if nobody else reads what is between them."""
    if last.op_type != "Reshape" or last.domain:
        return None
    chain = [last]
    for op in ("Transpose", "Reshape"):
        value = chain[0].inputs[0]
        node = value.producer() if value is not None else None
        if node is None or value is None or len(value.uses()) != 1 or value.is_graph_output():
            return None
        if node.op_type != op or node.domain:
            return None
        chain.insert(0, node)
    return chain


def _order(chain: list[ir.Node]) -> tuple[int, npt.NDArray[np.int64]] | None:
    """The axis that is reordered and the old index of every new one; None if it is more than that."""
    values = [chain[0].inputs[0], *(node.outputs[0] for node in chain)]
    shapes = [_sizes(value) for value in values]
    before, apart, _, after = shapes
    if before is None or apart is None or before != after or math.prod(before) != math.prod(apart):
        return None
    if not 0 < math.prod(before) <= _LARGEST:
        return None
    old = np.arange(math.prod(before)).reshape(before)
    order = chain[1].attributes.get_ints("perm") or range(len(apart))[::-1]
    new = old.reshape(apart).transpose(order).reshape(before)
    if (new == old).all():
        return None
    for axis in range(len(before)):
        step = math.prod(before[axis + 1 :])
        indices = np.moveaxis(new, axis, 0).reshape(before[axis], -1)[:, 0] // step
        if (indices < before[axis]).all() and (np.take(old, indices, axis) == new).all():
            return axis, indices.astype(np.int64)
    return None


def _sizes(value: ir.Value | None) -> list[int] | None:
    """Sizes of a value, a symbolic batch counted as 2; None if anything else is symbolic."""
    if value is None or value.shape is None or not len(value.shape):
        return None
    first, *rest = value.shape
    known = [size for size in rest if isinstance(size, int)]
    return [first if isinstance(first, int) else 2, *known] if len(known) == len(rest) else None
