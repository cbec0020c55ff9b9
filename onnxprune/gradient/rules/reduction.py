"""Reductions over axes, running sums and TopK; axes come as an input (opset 18), perhaps at run time."""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import Gradient, NoRule, Rule, given, integers, only, operand, zeros_like


@dataclass(frozen=True)
class Axes:
    """What a reduction runs over: `axes` is None for all; `squeezed` when the output lacks them."""

    op: Emitter
    axes: ir.Value | None
    squeezed: bool

    def restore(self, value: ir.Value) -> ir.Value:
        """`value`, of the output's shape, with the reduced axes back as ones."""
        return self.op.Unsqueeze(value, self.axes) if self.squeezed else value

    def total(self, value: ir.Value) -> ir.Value:
        """The sum of `value`, of the input's shape, over the reduced axes, kept as ones."""
        return self.op.ReduceSum(value, self.axes, keepdims=1)


Local = Callable[[Emitter, ir.Value, ir.Value, ir.Value, Axes], ir.Value]

_IDENTITY_WITHOUT_AXES = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"}


def _mean(op: Emitter, g: ir.Value, x: ir.Value, y: ir.Value, axes: Axes) -> ir.Value:
    # counted in double: float32 cannot tell sizes above 2²⁴ apart, and an integer division by zero traps
    sizes = [op.Cast(op.Size(value), to=ir.DataType.DOUBLE.value) for value in (x, y)]
    return op.Div(axes.restore(g), op.CastLike(op.Div(*sizes), x))


def _extremum(op: Emitter, g: ir.Value, x: ir.Value, y: ir.Value, axes: Axes) -> ir.Value:
    """Elements that tie share the gradient equally."""
    hit = op.Where(op.Equal(x, axes.restore(y)), op.scalar(1.0, x), op.scalar(0.0, x))
    return op.Mul(hit, op.Div(axes.restore(g), axes.total(hit)))


def _l2(op: Emitter, g: ir.Value, x: ir.Value, y: ir.Value, axes: Axes) -> ir.Value:
    zero = op.scalar(0.0, x)
    return op.Mul(x, axes.restore(op.Where(op.Equal(y, zero), zero, op.Div(g, y))))


def _prod(op: Emitter, g: ir.Value, x: ir.Value, y: ir.Value, axes: Axes) -> ir.Value:
    """∂y/∂x_i is the product of the others, also where one of them, or x_i itself, is zero."""
    one, zero = op.scalar(1.0, x), op.scalar(0.0, x)
    is_zero = op.Equal(x, zero)
    filled = op.Where(is_zero, one, x)
    nonzero = op.ReduceProd(filled, axes.axes, keepdims=1)
    flags = op.Where(is_zero, one, zero)
    other_zeros = op.Sub(axes.total(flags), flags)
    others = op.Where(op.Equal(other_zeros, zero), op.Div(nonzero, filled), zero)
    return op.Mul(axes.restore(g), others)


REDUCE: dict[str, Local] = {
    "ReduceL1": lambda op, g, x, y, axes: op.Mul(op.Sign(x), axes.restore(g)),
    "ReduceL2": _l2,
    "ReduceLogSum": lambda op, g, x, y, axes: axes.restore(op.Div(g, op.Exp(y))),
    "ReduceLogSumExp": lambda op, g, x, y, axes: op.Mul(op.Exp(op.Sub(x, axes.restore(y))), axes.restore(g)),
    "ReduceMax": _extremum,
    "ReduceMean": _mean,
    "ReduceMin": _extremum,
    "ReduceProd": _prod,
    "ReduceSum": lambda op, g, x, y, axes: axes.restore(g),
    "ReduceSumSquare": lambda op, g, x, y, axes: op.Mul(op.Mul(x, op.scalar(2.0, x)), axes.restore(g)),
}


def _reduce(local: Local) -> Rule:
    def rule(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
        g, x, axes = only(grads), operand(node), given(node, 1)
        if axes is not None and integers(axes) == []:
            axes = None
        if axes is None and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
            if node.op_type not in _IDENTITY_WITHOUT_AXES:
                raise NoRule("noop_with_empty_axes")
            return [g, None]
        squeezed = axes is not None and node.attributes.get_int("keepdims", 1) == 0
        grad = local(op, g, x, node.outputs[0], Axes(op, axes, squeezed))
        return [op.Expand(grad, op.Shape(x)), None]

    return rule


def _cumsum(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    exclusive, reverse = (node.attributes.get_int(name, 0) for name in ("exclusive", "reverse"))
    return [op.CumSum(only(grads), operand(node, 1), exclusive=exclusive, reverse=1 - reverse), None]


def _top_k(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    x, axis = operand(node), node.attributes.get_int("axis", -1)
    return [op.ScatterElements(zeros_like(op, x), node.outputs[1], only(grads), axis=axis), None]


REDUCTION: dict[str, Rule] = {
    **{name: _reduce(local) for name, local in REDUCE.items()},
    "CumSum": _cumsum,
    "TopK": _top_k,
}
