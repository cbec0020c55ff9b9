"""Conv, ConvTranspose, Gemm, MatMul and Einsum.

Layout is ONNX's own, and torch's: data [N, C, *space]; Conv weights [M, C/groups, *kernel], ConvTranspose
weights [C, M/groups, *kernel].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.finetune.ops.common import Function, per_channel
from onnxprune.finetune.ops.window import Window, halves, window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    w = window(x, weight.shape[2:], auto_pad, pads, strides, dilations)
    padding = w.padding
    if padding is None:
        x, padding = w.pad(x), [0] * len(w.kernel)
    return _CONV[len(w.kernel)](x, weight, bias, w.strides, padding, w.dilations, group)


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    w = window(x, weight.shape[2:], "NOTSET", pads, strides, dilations)
    n = len(w.kernel)
    extra = list(output_padding or [0] * n)
    begins, ends = w.begins, w.ends
    if output_shape or auto_pad != "NOTSET":
        totals = _transposed_pads(w, x, extra, output_shape, auto_pad)
        begins, ends = halves(totals, more_first=auto_pad != "SAME_UPPER")
    up = _CONV_TRANSPOSE[n]
    if begins == ends and min(begins) >= 0 and all(e < s for e, s in zip(extra, w.strides, strict=True)):
        return up(x, weight, bias, w.strides, begins, extra, group, w.dilations)
    # torch takes no padding of two sizes, and no output_padding from the stride on: the rest is zeros
    ends = [more - end for more, end in zip(extra, ends, strict=True)]
    shifted = Window(w.kernel, w.strides, w.dilations, [-begin for begin in begins], ends)
    y = shifted.pad(up(x, weight, None, w.strides, 0, 0, group, w.dilations))
    return y if bias is None else y + per_channel(bias, y)


def _transposed_pads(
    w: Window, x: Tensor, extra: Sequence[int], output_shape: Sequence[int] | None, auto_pad: str
) -> list[int]:
    """What to cut off each axis: down to `output_shape`, or for SAME_* to stride · size."""
    n = len(w.kernel)
    if output_shape is None and auto_pad == "VALID":
        return [0] * n
    totals = []
    for axis, (extent, stride) in enumerate(zip(w.extents, w.strides, strict=True)):
        size = x.shape[2 + axis]
        wanted = stride * size if output_shape is None else output_shape[axis - n]
        totals.append(max(stride * (size - 1) + extra[axis] + extent - wanted, 0))
    return totals


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    left, right = a.T if transA else a, b.T if transB else b
    if c is None:
        product = torch.mm(left, right)
        return product if alpha == 1 else alpha * product
    return torch.addmm(c, left, right, beta=beta, alpha=alpha)


def _einsum(*operands: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *operands)


LINEAR: dict[str, Function] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": torch.matmul,
}
