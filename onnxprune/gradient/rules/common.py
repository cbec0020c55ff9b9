"""What every rule shares: the types of the table, `Wide`, `NoRule`, and shape arithmetic emitted as nodes."""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter


class NoRule(Exception):
    """This node's form has no rule; the text says which form. The driver reports it as a blocked path."""


@dataclass(frozen=True)
class Wide:
    """A gradient broadcast wider than its input, to `shape` if that is known; the driver sums it back."""

    value: ir.Value
    shape: ir.Shape | None


Gradient = ir.Value | Wide | None
Rule = Callable[[Emitter, ir.Node, Sequence[ir.Value | None]], Sequence[Gradient]]


def given(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`, or None where it is omitted."""
    return node.inputs[index] if index < len(node.inputs) else None


def operand(node: ir.Node, index: int = 0) -> ir.Value:
    """Input `index` of `node`, which the op's schema demands."""
    value = given(node, index)
    assert value is not None
    return value


def only(grads: Sequence[ir.Value | None]) -> ir.Value:
    """The gradient of the first output, for ops whose further outputs carry none.

    Raises:
        NoRule: the first output has no gradient, or another one has.
    """
    first, *rest = grads
    if first is None or any(grad is not None for grad in rest):
        raise NoRule("gradient of an output other than the first")
    return first


def wide(value: ir.Value, like: ir.Value) -> Wide:
    """`value`, known to have the shape of `like`."""
    return Wide(value, like.shape)


def rank(value: ir.Value) -> int:
    """Number of axes of `value`.

    Raises:
        NoRule: shape inference left the rank unknown.
    """
    if value.shape is None:
        raise NoRule(f"unknown rank of '{value.name}'")
    return value.shape.rank()


def static(value: ir.Value, axis: int) -> int | None:
    """The size of `axis` of `value` where it is known before run time."""
    dim = value.shape[axis] if value.shape is not None else None
    return dim if isinstance(dim, int) else None


def integers(value: ir.Value | None) -> list[int] | None:
    """The entries of a constant integer vector, or None where it is computed at run time."""
    if value is None or value.const_value is None:
        return None
    return [int(entry) for entry in value.const_value.numpy().ravel()]


def axis_after(axis: int, value: ir.Value) -> int:
    """`axis` counted from the front; needs the rank of `value` only when it is negative."""
    return axis + rank(value) if axis < 0 else axis


def dimension(op: Emitter, value: ir.Value, axis: int) -> ir.Value:
    """Run-time size of `axis` (which may be negative) as an int64 vector of one entry."""
    return op.Shape(value, start=axis, end=None if axis == -1 else axis + 1)


def cast_like(op: Emitter, value: ir.Value, like: ir.Value) -> ir.Value:
    """`value` in the dtype of `like`; `value` itself where both are known to agree."""
    if value.dtype is not None and value.dtype == like.dtype:
        return value
    return op.CastLike(value, like)


def fill(op: Emitter, number: float, shape: ir.Value, like: ir.Value) -> ir.Value:
    """A tensor of run-time `shape` full of `number`, in the dtype of `like`."""
    return op.Expand(op.scalar(number, like), shape)


def zeros_like(op: Emitter, value: ir.Value) -> ir.Value:
    """Zeros in the shape and dtype of `value`."""
    return fill(op, 0.0, op.Shape(value), value)


def arange(op: Emitter, size: ir.Value) -> ir.Value:
    """0, 1, … up to the one entry of `size`: an int64 vector."""
    zero, one = (op.constant(np.array(number, dtype=np.int64)) for number in (0, 1))
    return op.Range(zero, op.Squeeze(size), one)


def scatter_add(op: Emitter, grad: ir.Value, index: ir.Value, axis: int, like: ir.Value) -> ir.Value:
    """Sum the slices of `grad` along `axis` into an axis as long as that of `like`, slice i at index[i].

    Args:
        op: the emitter.
        grad: [..., n, ...] of known rank of `like`.
        index: int64 [n]; negative entries count from the end.
        axis: counted from the front.
        like: the value whose size of `axis` the result gets.
    """
    after = rank(like) - axis - 1
    shape = op.Shape(grad)
    rows = op.Expand(op.Reshape(index, op.ints(*[1] * axis, -1, *[1] * after)), shape)
    sizes = [op.Shape(grad, start=0, end=axis), dimension(op, like, axis), op.Shape(grad, start=axis + 1)]
    target = fill(op, 0.0, op.Concat(*sizes, axis=0), like)
    return op.ScatterElements(target, rows, grad, axis=axis, reduction="add")
