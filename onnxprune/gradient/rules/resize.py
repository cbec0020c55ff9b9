"""Resize: separable and linear, so its adjoint is a product with one matrix an axis.

The matrix of an axis is what the very same Resize makes of an identity matrix. Whatever the mode, coordinate
transformation or rounding, forward and backward then agree with the runtime they run in.
"""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import (
    Gradient,
    NoRule,
    Rule,
    arange,
    dimension,
    given,
    integers,
    only,
    operand,
    rank,
    static,
)

_PER_AXIS = ("axes", "keep_aspect_ratio_policy", "extrapolation_value")


def _unchanged(node: ir.Node, axis: int, entry: int) -> bool:
    """Whether `axis`, the `entry`-th of the scales or sizes, is known to keep its size and place."""
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    scales = given(node, 2)
    if scales is not None and scales.const_value is not None and scales.const_value.size > 0:
        return bool(scales.const_value.numpy()[entry] == 1)
    size, sizes = static(operand(node), axis), integers(given(node, 3))
    return size is not None and size == (sizes[entry] if sizes else static(node.outputs[0], axis))


def _matrix(op: Emitter, node: ir.Node, axis: int, entry: int, count: int) -> ir.Value:
    """[size of x, size of y] along `axis`: the resized rows of an identity, as the width of a 4-D image."""
    x, roi, scales, sizes = operand(node), given(node, 1), given(node, 2), given(node, 3)
    length = dimension(op, x, axis)
    index = arange(op, length)
    same = op.Equal(op.Unsqueeze(index, op.ints(0)), op.Unsqueeze(index, op.ints(1)))
    identity = op.Where(same, op.scalar(1.0, x), op.scalar(0.0, x))
    one = op.ints(1)
    image = op.Reshape(identity, op.Concat(one, length, one, length, axis=0))
    if roi is not None and roi.const_value is not None and roi.const_value.size == 0:
        roi = None
    if roi is not None:
        whole = [
            op.CastLike(op.constant(np.array([bound] * 3, dtype=np.float32)), roi) for bound in (0.0, 1.0)
        ]
        low, high = op.Gather(roi, op.ints(entry)), op.Gather(roi, op.ints(entry + count))
        roi = op.Concat(whole[0], low, whole[1], high, axis=0)
    if sizes is not None:
        target = [None, op.Concat(one, length, one, op.Gather(sizes, op.ints(entry)), axis=0)]
    else:
        ones = op.constant(np.ones(3, dtype=np.float32))
        target = [op.Concat(ones, op.Gather(scales, op.ints(entry)), axis=0)]
    attributes = {key: value for key, value in node.attributes.items() if key not in _PER_AXIS}
    rows = op.Resize(image, roi, *target, **attributes)
    return op.Squeeze(rows, op.ints(0, 2))


def _resize(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    grad, axes = only(grads), node.attributes.get_ints("axes", None)
    n = rank(operand(node))
    if (
        given(node, 3) is not None
        and node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise NoRule("keep_aspect_ratio_policy")
    chosen = [int(axis) % n for axis in axes] if axes is not None else list(range(n))
    letters = ascii_lowercase[:n]
    for entry, axis in enumerate(chosen):
        if not _unchanged(node, axis, entry):
            matrix = _matrix(op, node, axis, entry, len(chosen))
            equation = f"{letters},z{letters[axis]}->{letters.replace(letters[axis], 'z')}"
            grad = op.Einsum(grad, matrix, equation=equation)
    return [grad, *[None] * (len(node.inputs) - 1)]


RESIZE: dict[str, Rule] = {"Resize": _resize}
