"""Pooling over windows and over all of space; data is [N, C, *space].

A sum over windows is turned round by a ConvTranspose of ones on data reshaped to one channel, so that neither
the number of channels nor the sizes need be known.
"""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import (
    Gradient,
    Rule,
    fill,
    only,
    operand,
    rank,
)
from onnxprune.gradient.rules.window import (
    Window,
    fit_space,
    pad_space,
    resolved_window,
    run_time_pads,
)


def _ones(op: Emitter, w: Window, like: ir.Value) -> ir.Value:
    return fill(op, 1.0, op.ints(1, 1, *w.kernel), like)


def _spread(op: Emitter, value: ir.Value, w: Window, x: ir.Value) -> ir.Value:
    """Add `value`, one entry a window, to every element of `x` that its window covers."""
    one_channel = op.Reshape(value, op.Concat(op.ints(-1, 1), op.Shape(value, start=2), axis=0))
    spread = op.ConvTranspose(one_channel, _ones(op, w, x), strides=w.strides, dilations=w.dilations)
    return op.Reshape(fit_space(op, spread, w, x), op.Shape(x))


def _counts(op: Emitter, w: Window, x: ir.Value, y: ir.Value, padding_counts: bool) -> ir.Value:
    """How many elements each window averages, [1, 1, *positions]; what ceil_mode adds never counts."""
    size, positions = op.Shape(x, start=2), op.Shape(y, start=2)
    before, after = run_time_pads(op, w, x)
    inside = fill(op, 1.0, op.Concat(op.ints(1, 1), size, axis=0), x)
    padded = pad_space(op, inside, before, after, op.scalar(float(padding_counts), x))
    reach = op.Add(op.Mul(op.Sub(positions, op.ints(1)), op.ints(*w.strides)), op.ints(*w.extents))
    missing = op.Sub(reach, op.Add(op.Add(size, before), after))
    fitted = pad_space(op, padded, op.ints(*[0] * len(w.kernel)), missing)
    return op.Conv(fitted, _ones(op, w, x), strides=w.strides, dilations=w.dilations)


def _average_pool(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, x, y = only(grads), operand(node), node.outputs[0]
    w = resolved_window(node, None, x)
    padding_counts = bool(node.attributes.get_int("count_include_pad", 0))
    padded = w.auto is not None or any(w.begins + w.ends)
    if node.attributes.get_int("ceil_mode", 0) or (padded and not padding_counts):
        count = _counts(op, w, x, y, padding_counts)
    else:
        count = op.scalar(float(np.prod(w.kernel)), x)
    return [_spread(op, op.Div(g, count), w, x)]


def _max_pool(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """Windows that overlap may share a maximum, so its gradients are added up where Indices say."""
    g, x = only(grads), operand(node)
    has_indices = len(node.outputs) > 1 and bool(node.outputs[1].name)
    if has_indices and not node.attributes.get_int("storage_order", 0):
        indices = node.outputs[1]
    else:
        attributes = {key: value for key, value in node.attributes.items() if key != "storage_order"}
        _, indices = op.MaxPool(x, outputs=2, **attributes)
    flat = op.ints(-1)
    target = fill(op, 0.0, op.Reshape(op.Size(x), flat), x)
    added = op.ScatterElements(
        target, op.Reshape(indices, flat), op.Reshape(g, flat), axis=0, reduction="add"
    )
    return [op.Reshape(added, op.Shape(x))]


def _norm_slope(op: Emitter, g: ir.Value, x: ir.Value, y: ir.Value, p: int) -> tuple[ir.Value, ir.Value]:
    """(u, v) with ∂L/∂x = v · u spread over the window, for y = (Σ|x|ᵖ)^(1/p)."""
    zero, power = op.scalar(0.0, x), op.scalar(float(p - 1), x)
    u = op.Where(op.Equal(y, zero), zero, op.Div(g, op.Pow(y, power)))
    return u, op.Mul(op.Sign(x), op.Pow(op.Abs(x), power))


def _lp_pool(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    x = operand(node)
    u, v = _norm_slope(op, only(grads), x, node.outputs[0], node.attributes.get_int("p", 2))
    return [op.Mul(v, _spread(op, u, resolved_window(node, None, x), x))]


def _global_average_pool(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, x = only(grads), operand(node)
    count = op.ReduceProd(op.CastLike(op.Shape(x, start=2), x), keepdims=0)
    return [op.Expand(op.Div(g, count), op.Shape(x))]


def _global_max_pool(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """Elements that tie share the gradient equally."""
    g, x = only(grads), operand(node)
    hit = op.Where(op.Equal(x, node.outputs[0]), op.scalar(1.0, x), op.scalar(0.0, x))
    share = op.Div(g, op.ReduceSum(hit, op.ints(*range(2, rank(x))), keepdims=1))
    return [op.Mul(hit, share)]


def _global_lp_pool(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    x = operand(node)
    u, v = _norm_slope(op, only(grads), x, node.outputs[0], node.attributes.get_int("p", 2))
    return [op.Mul(v, u)]


def _lrn(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """For y = x·s^(−β) with s = bias + α/size · Σ x² over a window of channels."""
    g, x = only(grads), operand(node)
    size = node.attributes["size"].as_int()
    alpha, beta, bias = (
        node.attributes.get_float(name, default)
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    less, more = (size - 1) // 2, size // 2
    w = Window([size, 1], [1, 1], [1, 1], [less, 0], [more, 0])
    rows = op.Reshape(
        op.Mul(x, x),
        op.Concat(op.Shape(x, start=0, end=1), op.ints(1), op.Shape(x, start=1, end=2), op.ints(-1), axis=0),
    )
    sums = op.Reshape(op.Conv(rows, _ones(op, w, x), pads=[less, 0, more, 0]), op.Shape(x))
    s = op.Add(op.Mul(sums, op.scalar(alpha / size, x)), op.scalar(bias, x))
    direct = op.Mul(g, op.Pow(s, op.scalar(-beta, x)))
    folded = op.Reshape(op.Div(op.Mul(direct, x), s), op.Shape(rows))
    turned = replace(w, begins=w.ends, ends=w.begins)
    back = op.Conv(folded, _ones(op, w, x), pads=turned.begins + turned.ends)
    shared = op.Mul(op.Mul(x, op.scalar(2 * alpha * beta / size, x)), op.Reshape(back, op.Shape(x)))
    return [op.Sub(direct, shared)]


POOLING: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": _global_max_pool,
    "LRN": _lrn,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
