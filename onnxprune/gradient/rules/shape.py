"""Ops that move, cut, join or repeat elements without changing them."""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import (
    Gradient,
    NoRule,
    Rule,
    arange,
    axis_after,
    dimension,
    given,
    integers,
    only,
    operand,
    rank,
    scatter_add,
    static,
    wide,
    zeros_like,
)


def _reshape(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    return [op.Reshape(only(grads), op.Shape(operand(node))), None]


def _transpose(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    perm = node.attributes.get_ints("perm", None)
    return [op.Transpose(only(grads), perm=None if perm is None else [int(i) for i in np.argsort(perm)])]


def _concat(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, axis = only(grads), node.attributes["axis"].as_int()
    if len(node.inputs) == 1:
        return [g]
    sizes = op.Concat(*(dimension(op, operand(node, i), axis) for i in range(len(node.inputs))), axis=0)
    return list(op.Split(g, sizes, axis=axis, outputs=len(node.inputs)))


def _split(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    pairs = zip(grads, node.outputs, strict=True)
    parts = [grad if grad is not None else zeros_like(op, part) for grad, part in pairs]
    return [op.Concat(*parts, axis=node.attributes.get_int("axis", 0)), None]


def _slice(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """Unit steps are undone by one Pad, any other by a Gather that reads a zero where nothing was taken."""
    g, x, starts = only(grads), operand(node), operand(node, 1)
    axes, steps = integers(given(node, 3)), integers(given(node, 4))
    if given(node, 3) is None and (count := static(starts, 0)) is not None:
        axes = list(range(count))
    if axes is None:
        raise NoRule("axes computed at run time")
    if given(node, 4) is None or (steps is not None and set(steps) == {1}):
        grad = _unslice_unit(op, g, x, node.outputs[0], starts, axes)
    else:
        grad = g
        for i, axis in enumerate(axes):
            grad = _unslice_axis(op, grad, node, i, axis)
    return [grad, *[None] * (len(node.inputs) - 1)]


def _unslice_unit(
    op: Emitter, g: ir.Value, x: ir.Value, y: ir.Value, starts: ir.Value, axes: list[int]
) -> ir.Value:
    order, zero = op.ints(*axes), op.ints(0)
    size, kept = op.Gather(op.Shape(x), order), op.Gather(op.Shape(y), order)
    starts = op.Cast(starts, to=ir.DataType.INT64.value)
    counted = op.Where(op.Less(starts, zero), op.Add(starts, size), starts)
    before = op.Min(op.Max(counted, zero), size)
    return op.Pad(g, op.Concat(before, op.Sub(op.Sub(size, before), kept), axis=0), None, order)


def _unslice_axis(op: Emitter, g: ir.Value, node: ir.Node, i: int, axis: int) -> ir.Value:
    """Undo the i-th of the slices of `node`; positions come from slicing 0, 1, … just as the data were."""
    size, kept = dimension(op, operand(node), axis), dimension(op, node.outputs[0], axis)
    start, end, step = (op.Gather(operand(node, k), op.ints(i)) for k in (1, 2, 4))
    taken = op.Slice(arange(op, size), start, end, op.CastLike(op.ints(0), start), step)
    sources = op.ScatterElements(op.Expand(kept, size), taken, arange(op, kept), axis=0)
    return op.Gather(op.Pad(g, op.ints(0, 1), None, op.ints(axis)), sources, axis=axis)


def _pad(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, x, pads, axes_input = only(grads), operand(node), operand(node, 1), given(node, 3)
    rest: list[Gradient] = [None] * (len(node.inputs) - 1)
    mode = node.attributes.get_string("mode", "constant")
    if mode == "constant":
        grad = op.Pad(g, op.Neg(pads), None, axes_input)
        if given(node, 2) is not None:
            rest[1] = op.Sub(op.ReduceSum(g, keepdims=0), op.ReduceSum(grad, keepdims=0))
        return [grad, *rest]
    axes = integers(axes_input) if axes_input is not None else list(range(rank(x)))
    if axes is None:
        raise NoRule("axes computed at run time")
    known = integers(pads)
    grad = g
    for i, axis in enumerate(axes):
        if known is not None and not (known[i] or known[i + len(axes)]):
            continue
        both = op.Gather(pads, op.ints(i, i + len(axes)))
        sources = op.Pad(arange(op, dimension(op, x, axis)), both, mode=mode)
        grad = scatter_add(op, grad, sources, axis_after(axis, x), x)
    return [grad, *rest]


def _gather(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    x = operand(node)
    axis = axis_after(node.attributes.get_int("axis", 0), x)
    shape = op.Concat(op.Shape(x, start=0, end=axis), op.ints(-1), op.Shape(x, start=axis + 1), axis=0)
    index = op.Cast(op.Reshape(operand(node, 1), op.ints(-1)), to=ir.DataType.INT64.value)
    return [scatter_add(op, op.Reshape(only(grads), shape), index, axis, x), None]


def _gather_elements(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    x, axis = operand(node), node.attributes.get_int("axis", 0)
    target = zeros_like(op, x)
    return [op.ScatterElements(target, operand(node, 1), only(grads), axis=axis, reduction="add"), None]


def _gather_nd(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    if node.attributes.get_int("batch_dims", 0):
        raise NoRule("batch_dims")
    target = zeros_like(op, operand(node))
    return [op.ScatterND(target, operand(node, 1), only(grads), reduction="add"), None]


def _scatter(elements: bool) -> Rule:
    """ScatterElements and ScatterND: what was overwritten gets no gradient, what was added to keeps it."""

    def rule(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
        g, indices, updates = only(grads), operand(node, 1), operand(node, 2)
        reduction = node.attributes.get_string("reduction", "none")
        if reduction not in ("none", "add"):
            raise NoRule(f"reduction {reduction}")
        along = {"axis": node.attributes.get_int("axis", 0)} if elements else {}
        scatter, gather = (op.ScatterElements, op.GatherElements) if elements else (op.ScatterND, op.GatherND)
        kept = g if reduction == "add" else scatter(g, indices, zeros_like(op, updates), **along)
        return [kept, None, gather(g, indices, **along)]

    return rule


def _expand(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    return [wide(only(grads), node.outputs[0]), None]


def _tile(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """Sum over the repeats, which come first in each pair of the shape [r₀, d₀, r₁, d₁, …]."""
    x, repeats = operand(node), operand(node, 1)
    column = op.ints(1)
    pairs = op.Concat(op.Unsqueeze(repeats, column), op.Unsqueeze(op.Shape(x), column), axis=1)
    copies = op.Mul(arange(op, op.Shape(repeats)), op.ints(2))
    return [op.ReduceSum(op.Reshape(only(grads), op.Reshape(pairs, op.ints(-1))), copies, keepdims=0), None]


def _trilu(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    kept = op.Trilu(only(grads), given(node, 1), upper=node.attributes.get_int("upper", 1))
    return [kept, None]


def _depth_to_space(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, x, block = only(grads), operand(node), node.attributes["blocksize"].as_int()
    if node.attributes.get_string("mode", "DCR") == "DCR":
        return [op.SpaceToDepth(g, blocksize=block)]
    # CRD: [N, C', H·b, W·b] → [N, C', H, b, W, b] → [N, C', b, b, H, W] → [N, C, H, W]
    height, width, b = op.Shape(x, start=2, end=3), op.Shape(x, start=3, end=4), op.ints(block)
    blocks = op.Reshape(g, op.Concat(op.ints(0, 0), height, b, width, b, axis=0))
    return [op.Reshape(op.Transpose(blocks, perm=[0, 1, 3, 5, 2, 4]), op.Shape(x))]


def _space_to_depth(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    mode = node.attributes.get_string("mode", "DCR")  # since opset 28
    return [op.DepthToSpace(only(grads), blocksize=node.attributes["blocksize"].as_int(), mode=mode)]


SHAPE: dict[str, Rule] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": _reshape,
    "ScatterElements": _scatter(elements=True),
    "ScatterND": _scatter(elements=False),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _reshape,
}
