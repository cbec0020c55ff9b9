"""Pooling over windows and over all of space; data is [N, C, *space]."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.finetune.ops.common import Function
from onnxprune.finetune.ops.window import Window, fitted, window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMUM = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _sums(padded: Tensor, w: Window) -> Tensor:
    """The sum over each window of `padded`."""
    n = len(w.kernel)
    if set(w.dilations) <= {1}:
        return _AVERAGE[n](padded, w.kernel, w.strides) * prod(w.kernel)
    one_channel = padded.reshape(-1, 1, *padded.shape[2:])
    ones = padded.new_ones((1, 1, *w.kernel))
    sums = _CONV[n](one_channel, ones, None, w.strides, 0, w.dilations)
    return sums.reshape(*padded.shape[:2], *sums.shape[2:])


def _average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """What ceil_mode adds at the end never counts."""
    w = window(x, kernel_shape, auto_pad, pads, strides, dilations)
    reach, padding = fitted(w, x) if ceil_mode else w, w.pool_padding
    if reach == w and padding is not None and set(w.dilations) <= {1}:
        return _AVERAGE[len(w.kernel)](
            x, w.kernel, w.strides, padding, count_include_pad=bool(count_include_pad)
        )
    sums = _sums(reach.pad(x), w)
    if reach == w and (count_include_pad or not any(w.begins + w.ends)):
        return sums / prod(w.kernel)
    inside = w.pad(x.new_ones((1, 1, *x.shape[2:])), float(count_include_pad))
    missing = [more - end for more, end in zip(reach.ends, w.ends, strict=True)]
    beyond = Window(w.kernel, w.strides, w.dilations, [0] * len(missing), missing)
    return sums / _sums(beyond.pad(inside), w)


def _max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    outputs: int,
) -> list[Tensor]:
    w = window(x, kernel_shape, auto_pad, pads, strides, dilations)
    if ceil_mode:
        w = fitted(w, x)
    if outputs == 1 and w.pool_padding is not None:
        return [_MAXIMUM[len(w.kernel)](x, w.kernel, w.strides, w.pool_padding, w.dilations)]
    lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = w.pad(x, lowest) if any(w.begins + w.ends) else x
    walk = (padded, w.kernel, w.strides, 0, w.dilations)
    if outputs == 1:
        return [_MAXIMUM[len(w.kernel)](*walk)]
    y, indices = _MAXIMUM[len(w.kernel)](*walk, return_indices=True)
    return [y, _indices(indices, x.shape, padded.shape[2:], w.begins, storage_order)]


def _indices(
    places: Tensor, shape: Sequence[int], padded: Sequence[int], begins: Sequence[int], column_major: int
) -> Tensor:
    """Places in the padded image of a channel as places in the whole of x, of `shape`."""
    coordinates = []
    for size, begin in zip(reversed(padded), reversed(begins), strict=True):
        coordinates.append(places % size - begin)
        places = places // size
    sizes = list(reversed(shape[2:]))
    if column_major:
        coordinates, sizes = coordinates[::-1], sizes[::-1]
    images = torch.arange(shape[0] * shape[1], device=places.device)
    flat = images.reshape(*shape[:2], *[1] * len(sizes))
    for coordinate, size in zip(reversed(coordinates), reversed(sizes), strict=True):
        flat = flat * size + coordinate
    return flat


def _root(sums: Tensor, p: int) -> Tensor:
    """sums^(1/p), with a gradient of zero at zero."""
    zero = sums == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, sums) ** (1 / p))


def _lp_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    w = window(x, kernel_shape, auto_pad, pads, strides, dilations)
    if ceil_mode:
        w = fitted(w, x)
    return _root(_sums(w.pad(x.abs() ** p), w), p)


def _space(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def _global_average_pool(x: Tensor) -> Tensor:
    return x.mean(_space(x), keepdim=True)


def _global_max_pool(x: Tensor) -> Tensor:
    return x.amax(_space(x), keepdim=True)


def _global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, p, _space(x), keepdim=True)
    return norm


def _lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """Over a window of channels; of an even size the odd one comes after."""
    squares = F.pad((x * x).movedim(1, -1), [(size - 1) // 2, size // 2])
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x * (bias + alpha / size * sums) ** -beta


POOLING: dict[str, Function] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": _global_max_pool,
    "LRN": _lrn,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
