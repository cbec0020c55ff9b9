"""Normalisations, and the softmaxes.

All but BatchNormalization share x̂ = (x − μ)·r over some axes, whose gradient is
∂L/∂x = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂)) with ĝ = ∂L/∂x̂, the middle term only where μ is taken off
(Ioffe & Szegedy 2015, §3).
"""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import (
    Gradient,
    NoRule,
    Rule,
    axis_after,
    cast_like,
    only,
    operand,
    rank,
    wide,
)


@dataclass(frozen=True)
class _Normalised:
    """x̂ and r of one normalisation over constant `axes`."""

    op: Emitter
    axes: ir.Value
    centred: bool
    unit: ir.Value
    inverse: ir.Value

    def gradient(self, grad: ir.Value) -> ir.Value:
        """∂L/∂x from ĝ."""
        op = self.op
        along = op.Mul(self.unit, op.ReduceMean(op.Mul(grad, self.unit), self.axes, keepdims=1))
        rest = op.Sub(grad, along)
        if self.centred:
            rest = op.Sub(rest, op.ReduceMean(grad, self.axes, keepdims=1))
        return op.Mul(self.inverse, rest)


def _normalise(
    op: Emitter, x: ir.Value, axes: Sequence[int], epsilon: float, like: ir.Value, centred: bool = True
) -> _Normalised:
    over = op.ints(*axes)
    offset = op.Sub(x, op.ReduceMean(x, over, keepdims=1)) if centred else x
    variance = op.ReduceMean(op.Mul(offset, offset), over, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, op.scalar(epsilon, like))))
    return _Normalised(op, over, centred, op.Mul(offset, inverse), inverse)


def _per_channel(op: Emitter, vector: ir.Value, x: ir.Value) -> ir.Value:
    """[C] as [C, 1, …], which broadcasts over the spatial axes of `x`."""
    return op.Reshape(cast_like(op, vector, x), op.ints(-1, *[1] * (rank(x) - 2)))


def _channel_sum(op: Emitter, value: ir.Value, x: ir.Value, vector: ir.Value) -> ir.Value:
    summed = op.ReduceSum(value, op.ints(0, *range(2, rank(x))), keepdims=0)
    return cast_like(op, summed, vector)


def _batch_normalization(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    if node.attributes.get_int("training_mode", 0):
        raise NoRule("training mode")
    g, x = only(grads), operand(node)
    scale, _bias, mean, variance = vectors = [operand(node, i) for i in range(1, 5)]
    epsilon = op.scalar(node.attributes.get_float("epsilon", 1e-5), x)
    inverse = op.Reciprocal(op.Sqrt(op.Add(_per_channel(op, variance, x), epsilon)))
    unit = op.Mul(op.Sub(x, _per_channel(op, mean, x)), inverse)
    grad_x = op.Mul(g, op.Mul(_per_channel(op, scale, x), inverse))
    grad_variance = op.Mul(op.Mul(op.Mul(grad_x, unit), inverse), op.scalar(-0.5, x))
    sums = [op.Mul(g, unit), g, op.Neg(grad_x), grad_variance]
    return [grad_x, *(_channel_sum(op, s, x, v) for s, v in zip(sums, vectors, strict=True))]


def _layer_normalization(centred: bool) -> Rule:
    def rule(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
        g, x, scale = only(grads), operand(node, 0), operand(node, 1)
        axis = axis_after(node.attributes.get_int("axis", -1), x)
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        normalised = _normalise(op, x, range(axis, rank(x)), epsilon, x, centred)
        grad_x = normalised.gradient(op.Mul(g, cast_like(op, scale, x)))
        grad_scale, grad_bias = (cast_like(op, v, scale) for v in (op.Mul(g, normalised.unit), g))
        return [grad_x, wide(grad_scale, x), wide(grad_bias, x)]

    return rule


def _instance_normalization(
    op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]
) -> Sequence[Gradient]:
    g, x, scale = only(grads), operand(node, 0), operand(node, 1)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    normalised = _normalise(op, x, range(2, rank(x)), epsilon, x)
    grad_x = normalised.gradient(op.Mul(g, _per_channel(op, scale, x)))
    return [grad_x, _channel_sum(op, op.Mul(g, normalised.unit), x, scale), _channel_sum(op, g, x, scale)]


def _group_normalization(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """The opset-21 form, with a scale for each channel; opset 18 had one for each group."""
    g, x, scale = only(grads), operand(node, 0), operand(node, 1)
    if node.graph is not None and node.graph.opset_imports.get("", 21) < 21:
        raise NoRule("the form of opset 18, which opset 21 replaced")
    groups = op.ints(0, node.attributes["num_groups"].as_int(), -1)
    normalised = _normalise(op, op.Reshape(x, groups), [2], node.attributes.get_float("epsilon", 1e-5), x)
    grad = op.Reshape(op.Mul(g, _per_channel(op, scale, x)), groups)
    unit = op.Reshape(normalised.unit, op.Shape(x))
    grad_x = op.Reshape(normalised.gradient(grad), op.Shape(x))
    return [grad_x, _channel_sum(op, op.Mul(g, unit), x, scale), _channel_sum(op, g, x, scale)]


def _lp_normalization(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """For y = x/n, ∂L/∂x = (g − ∂n/∂x · Σ g·y)/n; ∂n/∂x is y for p = 2, sign(x) for p = 1; 0 at n = 0."""
    g, x, y = only(grads), operand(node), node.outputs[0]
    axis, zero = op.ints(node.attributes.get_int("axis", -1)), op.scalar(0.0, x)
    euclidean = node.attributes.get_int("p", 2) == 2
    norm = op.ReduceL2(x, axis, keepdims=1) if euclidean else op.ReduceL1(x, axis, keepdims=1)
    slope = y if euclidean else op.Sign(x)
    rest = op.Sub(g, op.Mul(slope, op.ReduceSum(op.Mul(g, y), axis, keepdims=1)))
    return [op.Where(op.Equal(norm, zero), zero, op.Div(rest, norm))]


def _mean_variance_normalization(
    op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]
) -> Sequence[Gradient]:
    x = operand(node)
    axes = [int(axis) for axis in node.attributes.get_ints("axes", [0, 2, 3])]
    # the op adds 1e-9 to the deviation, not to the variance: below what float64 sums resolve
    return [_normalise(op, x, axes, 1e-18, x).gradient(only(grads))]


def _softmax(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, y = only(grads), node.outputs[0]
    axis = op.ints(node.attributes.get_int("axis", -1))
    return [op.Mul(y, op.Sub(g, op.ReduceSum(op.Mul(g, y), axis, keepdims=1)))]


def _log_softmax(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g = only(grads)
    axis = op.ints(node.attributes.get_int("axis", -1))
    return [op.Sub(g, op.Mul(op.Exp(node.outputs[0]), op.ReduceSum(g, axis, keepdims=1)))]


NORMALISATION: dict[str, Rule] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization(centred=True),
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "RMSNormalization": _layer_normalization(centred=False),
    "Softmax": _softmax,
}
