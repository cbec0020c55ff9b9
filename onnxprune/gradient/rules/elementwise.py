"""Functions of one element, and the broadcasting ops of two or more operands.

A row of `UNARY` gives ∂L/∂x from g = ∂L/∂y, x and y. Where a function has a kink, the gradient there is the
one torch takes.
"""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import Gradient, NoRule, Rule, cast_like, given, only, operand, wide

Unary = Callable[[Emitter, ir.Node, ir.Value, ir.Value, ir.Value], ir.Value]


def _attribute(node: ir.Node, name: str, default: float) -> float:
    return node.attributes.get_float(name, default)


def _square(op: Emitter, x: ir.Value) -> ir.Value:
    return op.Mul(x, x)


def _positive(op: Emitter, x: ir.Value, then: ir.Value, otherwise: ir.Value, above: float = 0.0) -> ir.Value:
    return op.Where(op.Greater(x, op.scalar(above, x)), then, otherwise)


def _scaled(op: Emitter, g: ir.Value, factor: float, like: ir.Value) -> ir.Value:
    return op.Mul(g, op.scalar(factor, like))


def _one_minus(op: Emitter, value: ir.Value, like: ir.Value) -> ir.Value:
    return op.Sub(op.scalar(1.0, like), value)


def _leaky_relu(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return _positive(op, x, g, _scaled(op, g, _attribute(node, "alpha", 0.01), x))


def _elu(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    alpha = op.scalar(_attribute(node, "alpha", 1.0), x)
    return _positive(op, x, g, op.Mul(g, op.Add(y, alpha)))


def _selu(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    alpha = _attribute(node, "alpha", 1.67326319217681884765625)
    gamma = _attribute(node, "gamma", 1.05070102214813232421875)
    return op.Mul(g, _positive(op, x, op.scalar(gamma, x), op.Add(y, op.scalar(alpha * gamma, x))))


def _celu(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    alpha = op.scalar(_attribute(node, "alpha", 1.0), x)
    return _positive(op, x, g, op.Mul(g, op.Add(op.Div(y, alpha), op.scalar(1.0, x))))


def _thresholded_relu(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return _positive(op, x, g, op.scalar(0.0, x), above=_attribute(node, "alpha", 1.0))


def _shrink(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    beyond = op.Greater(op.Abs(x), op.scalar(_attribute(node, "lambd", 0.5), x))
    return op.Where(beyond, g, op.scalar(0.0, x))


def _hard_sigmoid(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    inside = op.And(op.Greater(y, op.scalar(0.0, x)), op.Less(y, op.scalar(1.0, x)))
    return op.Where(inside, _scaled(op, g, _attribute(node, "alpha", 0.2), x), op.scalar(0.0, x))


def _hard_swish(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    middle = op.Add(_scaled(op, x, 1 / 3, x), op.scalar(0.5, x))
    upper = op.Where(op.Less(x, op.scalar(3.0, x)), middle, op.scalar(1.0, x))
    return op.Mul(g, _positive(op, x, upper, op.scalar(0.0, x), above=-3.0))


def _mish(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    t = op.Tanh(op.Softplus(x))
    slope = op.Mul(op.Mul(x, op.Sigmoid(x)), _one_minus(op, _square(op, t), x))
    return op.Mul(g, op.Add(t, slope))


def _swish(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    alpha = _attribute(node, "alpha", 1.0)
    s = op.Sigmoid(_scaled(op, x, alpha, x))
    return op.Mul(g, op.Add(s, _scaled(op, op.Mul(y, _one_minus(op, s, x)), alpha, x)))


def _gelu(op: Emitter, node: ir.Node, g: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    if node.attributes.get_string("approximate", "none") == "tanh":
        return op.Mul(g, _gelu_tanh_slope(op, x))
    half, one = op.scalar(0.5, x), op.scalar(1.0, x)
    cdf = op.Mul(half, op.Add(one, op.Erf(_scaled(op, x, math.sqrt(0.5), x))))
    pdf = _scaled(op, op.Exp(_scaled(op, _square(op, x), -0.5, x)), 1 / math.sqrt(2 * math.pi), x)
    return op.Mul(g, op.Add(cdf, op.Mul(x, pdf)))


def _gelu_tanh_slope(op: Emitter, x: ir.Value) -> ir.Value:
    """Slope of x·(1+t)/2 with t = tanh(√(2/π)(x + 0.044715x³))."""
    root, half, one = math.sqrt(2 / math.pi), op.scalar(0.5, x), op.scalar(1.0, x)
    square = _square(op, x)
    inner = op.Mul(x, op.Add(op.scalar(root, x), _scaled(op, square, root * 0.044715, x)))
    inner_slope = op.Add(op.scalar(root, x), _scaled(op, square, 3 * root * 0.044715, x))
    t = op.Tanh(inner)
    bend = op.Mul(op.Mul(x, inner_slope), _one_minus(op, _square(op, t), x))
    return op.Mul(half, op.Add(op.Add(one, t), bend))


UNARY: dict[str, Unary] = {
    "Abs": lambda op, n, g, x, y: op.Mul(g, op.Sign(x)),
    "Acos": lambda op, n, g, x, y: op.Neg(op.Div(g, op.Sqrt(_one_minus(op, _square(op, x), x)))),
    "Acosh": lambda op, n, g, x, y: op.Div(g, op.Sqrt(op.Sub(_square(op, x), op.scalar(1.0, x)))),
    "Asin": lambda op, n, g, x, y: op.Div(g, op.Sqrt(_one_minus(op, _square(op, x), x))),
    "Asinh": lambda op, n, g, x, y: op.Div(g, op.Sqrt(op.Add(_square(op, x), op.scalar(1.0, x)))),
    "Atan": lambda op, n, g, x, y: op.Div(g, op.Add(_square(op, x), op.scalar(1.0, x))),
    "Atanh": lambda op, n, g, x, y: op.Div(g, _one_minus(op, _square(op, x), x)),
    "Cast": lambda op, n, g, x, y: cast_like(op, g, x),
    "CastLike": lambda op, n, g, x, y: cast_like(op, g, x),
    "Celu": _celu,
    "Cos": lambda op, n, g, x, y: op.Neg(op.Mul(g, op.Sin(x))),
    "Cosh": lambda op, n, g, x, y: op.Mul(g, op.Sinh(x)),
    "Elu": _elu,
    "Erf": lambda op, n, g, x, y: _scaled(
        op, op.Mul(g, op.Exp(op.Neg(_square(op, x)))), 2 / math.sqrt(math.pi), x
    ),
    "Exp": lambda op, n, g, x, y: op.Mul(g, y),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": lambda op, n, g, x, y: g,
    "LeakyRelu": _leaky_relu,
    "Log": lambda op, n, g, x, y: op.Div(g, x),
    "Mish": _mish,
    "Neg": lambda op, n, g, x, y: op.Neg(g),
    "Reciprocal": lambda op, n, g, x, y: op.Neg(op.Mul(g, _square(op, y))),
    "Relu": lambda op, n, g, x, y: _positive(op, x, g, op.scalar(0.0, x)),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": lambda op, n, g, x, y: op.Mul(g, op.Mul(y, _one_minus(op, y, x))),
    "Sin": lambda op, n, g, x, y: op.Mul(g, op.Cos(x)),
    "Sinh": lambda op, n, g, x, y: op.Mul(g, op.Cosh(x)),
    "Softplus": lambda op, n, g, x, y: op.Mul(g, op.Sigmoid(x)),
    "Softsign": lambda op, n, g, x, y: op.Div(g, _square(op, op.Add(op.Abs(x), op.scalar(1.0, x)))),
    "Sqrt": lambda op, n, g, x, y: op.Div(_scaled(op, g, 0.5, x), y),
    "Swish": _swish,
    "Tan": lambda op, n, g, x, y: op.Mul(g, op.Add(_square(op, y), op.scalar(1.0, x))),
    "Tanh": lambda op, n, g, x, y: op.Mul(g, _one_minus(op, _square(op, y), x)),
    "ThresholdedRelu": _thresholded_relu,
}


def _unary(local: Unary) -> Rule:
    def rule(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
        x = operand(node)
        return [local(op, node, only(grads), x, node.outputs[0]), *[None] * (len(node.inputs) - 1)]

    return rule


def _dropout(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    training = given(node, 2)
    if training is not None and (training.const_value is None or training.const_value.numpy().any()):
        raise NoRule("training mode")
    return [only(grads[:1]), None, None]


def _add(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    return [wide(only(grads), node.outputs[0])] * len(node.inputs)


def _sub(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, y = only(grads), node.outputs[0]
    return [wide(g, y), wide(op.Neg(g), y)]


def _mul(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, y = only(grads), node.outputs[0]
    return [wide(op.Mul(g, operand(node, 1)), y), wide(op.Mul(g, operand(node, 0)), y)]


def _div(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    y = node.outputs[0]
    quotient = op.Div(only(grads), operand(node, 1))
    return [wide(quotient, y), wide(op.Neg(op.Mul(quotient, y)), y)]


def _pow(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, (x, p), y = only(grads), (operand(node, 0), operand(node, 1)), node.outputs[0]
    zero = op.scalar(0.0, x)
    exponent = cast_like(op, p, x)
    # x⁻¹ at x = 0 with p = 0 would be 0·∞
    slope = op.Mul(exponent, op.Pow(x, op.Sub(exponent, op.scalar(1.0, x))))
    base = op.Mul(g, op.Where(op.Equal(exponent, zero), zero, slope))
    log = op.Where(op.Equal(x, zero), zero, op.Log(x))
    return [wide(base, y), wide(cast_like(op, op.Mul(g, op.Mul(y, log)), p), y)]


def _mean(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, y = only(grads), node.outputs[0]
    return [wide(_scaled(op, g, 1 / len(node.inputs), y), y)] * len(node.inputs)


def _extremum(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """Min and Max: operands that tie share the gradient equally."""
    g, y = only(grads), node.outputs[0]
    one, zero = op.scalar(1.0, y), op.scalar(0.0, y)
    hits = [op.Where(op.Equal(x, y), one, zero) for x in node.inputs]
    share = op.Div(g, op.Sum(*hits))
    return [wide(op.Mul(share, hit), y) for hit in hits]


def _where(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, condition, y = only(grads), operand(node), node.outputs[0]
    zero = op.scalar(0.0, y)
    return [None, wide(op.Where(condition, g, zero), y), wide(op.Where(condition, zero, g), y)]


def _prelu(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, (x, slope) = only(grads), (operand(node, 0), operand(node, 1))
    return [_positive(op, x, g, op.Mul(g, slope)), wide(_positive(op, x, op.scalar(0.0, x), op.Mul(g, x)), x)]


def _clip(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    """Whichever of the three is y = min(max(x, low), high) takes the gradient; at a bound, x does."""
    g, x, low, high = only(grads), operand(node), given(node, 1), given(node, 2)
    zero = op.scalar(0.0, x)
    rest = g
    bounds: list[Gradient] = [None, None]
    floored = op.Max(x, low) if low is not None else x
    for index, bound, beyond in ((1, high, op.Greater), (0, low, op.Less)):
        if bound is not None:
            cut = beyond(floored if index else x, bound)
            bounds[index] = wide(op.Where(cut, rest, zero), x)
            rest = op.Where(cut, zero, rest)
    return [rest, *bounds]


ELEMENTWISE: dict[str, Rule] = {
    **{name: _unary(local) for name, local in UNARY.items()},
    "Add": _add,
    "Clip": _clip,
    "Div": _div,
    "Dropout": _dropout,
    "Max": _extremum,
    "Mean": _mean,
    "Min": _extremum,
    "Mul": _mul,
    "PRelu": _prelu,
    "Pow": _pow,
    "Sub": _sub,
    "Sum": _add,
    "Where": _where,
}
