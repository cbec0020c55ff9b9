"""im2col: what a convolution multiplies its weights with, as columns in a graph that is being emitted.

    patches     [groups, d_in, rows]     rows are samples × positions, samples slowest

It needs no op of its own: the node's own op with one-hot kernels and one group a channel puts every patch
entry on a channel, padding zeros included; that holds for Conv and, with its zero-inserted input, for
ConvTranspose alike. Where only some rows are wanted (see `rows`), the one-hot kernels run on the numbers of
one image's pixels instead: what comes out says which pixels to gather, and the other rows are never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.rows import Rows

_PASSED_ON = ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")
# Pixel numbers go through the kernels as digits of these values: eleven bits, all that TF32 has, hold them.
_DIGITS = (1 << 20, 1 << 10, 1)


@dataclass(frozen=True)
class Window:
    """How a Conv or ConvTranspose reads its input: its attributes, and the spatial sizes of its kernels."""

    node: ir.Node
    kernel: tuple[int, ...]
    channels: int
    groups: int

    @property
    def width(self) -> int:
        """d_in: entries of a patch, channels slowest."""
        return self.channels // self.groups * prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether a patch is one pixel, and every pixel one patch."""
        given = self.node.attributes
        moves = [*(given.get_ints("strides") or ()), *(1 + pad for pad in given.get_ints("pads") or ())]
        enlarged = [*(given.get_ints("output_padding") or ()), *(given.get_ints("output_shape") or ())]
        return prod(self.kernel) == 1 and all(step == 1 for step in moves) and not any(enlarged)

    def unfolded(self, op: Emitter, value: ir.Value, channels: int, dtype: npt.DTypeLike) -> ir.Value:
        """`value` [N, channels, …] as [N, channels · kernel positions, …]: the op with one-hot kernels."""
        size = prod(self.kernel)
        one_hot = np.eye(size, dtype=dtype).reshape(1, size, *self.kernel)
        kernels = np.broadcast_to(one_hot, (channels, size, *self.kernel))
        if self.node.op_type == "Conv":  # ConvTranspose has its kernels as [input channels, outputs, …]
            kernels = kernels.reshape(channels * size, 1, *self.kernel)
        constant = op.constant(np.ascontiguousarray(kernels))
        given = {
            name: self.node.attributes[name].value for name in _PASSED_ON if name in self.node.attributes
        }
        unfolded: ir.Value = op.node(self.node.op_type, [value, constant], {**given, "group": channels})
        return unfolded


def patches(
    op: Emitter, value: ir.Value, window: Window, dtype: npt.DTypeLike, rows: Rows | None = None
) -> ir.Value:
    """Emit the patches of `value` [N, channels, …].

    Args:
        op: where to emit.
        value: the input of the window's node.
        window: how it is read.
        dtype: of `value`.
        rows: which rows are wanted; all if None.
    """
    if rows is not None and not window.is_pointwise:
        return _sampled(op, value, window, dtype, rows)
    if not window.is_pointwise:
        value = window.unfolded(op, value, window.channels, dtype)
    return picked(op, channels_first(op, value, window.groups, window.width), rows)


def _sampled(op: Emitter, value: ir.Value, window: Window, dtype: npt.DTypeLike, rows: Rows) -> ir.Value:
    """Row r is position r mod T of image r div T; gathered from [channels, images · pixels]."""
    flat = op.Reshape(value, op.ints(0, 0, -1))
    images, pixels = op.Shape(flat, end=1), op.Shape(flat, start=2)
    sources = _sources(op, value, window, pixels)
    positions = op.Shape(sources, start=1)
    wanted = rows.numbers(op, op.Squeeze(op.Mul(images, positions)))
    source = op.Gather(sources, op.Mod(wanted, positions), axis=1)  # [kernel positions, rows], 0 for padding
    place = op.Add(op.Max(op.Sub(source, op.ints(1)), op.ints(0)), op.Mul(op.Div(wanted, positions), pixels))
    columns = op.Reshape(op.Transpose(flat, perm=[1, 0, 2]), op.ints(window.channels, -1))
    gathered = op.Gather(columns, place, axis=1)
    inside = op.Cast(op.Greater(source, op.ints(0)), to=ir.DataType.from_numpy(np.dtype(dtype)).value)
    result: ir.Value = op.Reshape(op.Mul(gathered, inside), op.ints(window.groups, window.width, -1))
    return result


def _sources(op: Emitter, value: ir.Value, window: Window, pixels: ir.Value) -> ir.Value:
    """Of each patch entry the number of its pixel, from 1, or 0: int64 [kernel positions, positions]."""
    one, base = op.constant(1, np.int64), op.ints(_DIGITS[-2])
    numbers = op.Range(one, op.Add(op.Squeeze(pixels), one), one)
    digits = op.Concat(*(op.Mod(op.Div(numbers, op.ints(digit)), base) for digit in _DIGITS), axis=0)
    image = op.Reshape(digits, op.Concat(op.ints(1, len(_DIGITS)), op.Shape(value, start=2), axis=0))
    unfolded = window.unfolded(op, op.Cast(image, to=ir.DataType.FLOAT.value), len(_DIGITS), np.float32)
    found = op.Reshape(unfolded, op.ints(len(_DIGITS), prod(window.kernel), -1))
    weights = op.constant(np.array(_DIGITS, np.int64)[:, None, None])
    sources: ir.Value = op.ReduceSum(
        op.Mul(op.Cast(found, to=ir.DataType.INT64.value), weights), op.ints(0), keepdims=0
    )
    return sources


def picked(op: Emitter, value: ir.Value, rows: Rows | None) -> ir.Value:
    """The wanted columns of `value` [groups, width, rows]."""
    return value if rows is None else rows.of(op, value)


def channels_first(op: Emitter, value: ir.Value, groups: int, width: int) -> ir.Value:
    """[N, groups · width, …] as [groups, width, N · positions]."""
    split = op.Reshape(value, op.ints(0, groups, width, -1))
    result: ir.Value = op.Reshape(op.Transpose(split, perm=[1, 2, 0, 3]), op.ints(groups, width, -1))
    return result
