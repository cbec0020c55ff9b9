"""Ops that move, cut, join or repeat elements, and those that ask or make shapes."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.finetune.ops.common import Function, Integers, Number, integer, integers


def _reshape(x: Tensor, shape: Integers, *, allowzero: int = 0) -> Tensor:
    sizes = integers(shape)
    if not allowzero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis % x.dim() if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def _transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    return x.permute(perm if perm is not None else list(reversed(range(x.dim()))))


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _split(
    x: Tensor, sizes: Integers | None = None, *, axis: int = 0, num_outputs: int = 0, outputs: int
) -> list[Tensor]:
    if sizes is not None:
        return list(torch.split(x, integers(sizes), axis))
    parts, size = num_outputs or outputs, x.shape[axis]
    each = -(-size // parts)
    return list(torch.split(x, [*[each] * (parts - 1), size - each * (parts - 1)], axis))


def _slice(
    x: Tensor, starts: Integers, ends: Integers, axes: Integers | None = None, steps: Integers | None = None
) -> Tensor:
    begin, end = integers(starts), integers(ends)
    along = integers(axes) if axes is not None else list(range(len(begin)))
    step = integers(steps) if steps is not None else [1] * len(begin)
    for axis, *bounds in zip(along, begin, end, step, strict=True):
        taken = range(*slice(*bounds).indices(x.shape[axis]))
        if taken.step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(taken.start, taken.stop, taken.step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


def _squeeze(x: Tensor, axes: Integers | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(integers(axes))


def _unsqueeze(x: Tensor, axes: Integers) -> Tensor:
    along = integers(axes)
    for axis in sorted(axis % (x.dim() + len(along)) for axis in along):
        x = x.unsqueeze(axis)
    return x


def _expand(x: Tensor, shape: Integers) -> Tensor:
    wide = torch.broadcast_shapes(x.shape, tuple(integers(shape)))  # type: ignore[no-untyped-call]  # torch has no types
    return x.expand(wide)


def _tile(x: Tensor, repeats: Integers) -> Tensor:
    return x.repeat(integers(repeats))


def _pad(
    x: Tensor,
    pads: Integers,
    number: Number | None = None,
    axes: Integers | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Negative pads crop."""
    amounts = integers(pads)
    count = len(amounts) // 2
    along = integers(axes) if axes is not None else list(range(count))
    both = {axis % x.dim(): (amounts[n], amounts[n + count]) for n, axis in enumerate(along)}
    if mode != "constant":
        for axis, (before, after) in both.items():
            x = _pad_axis(x, axis, before, after, mode)
        return x
    flat = [amount for axis in reversed(range(x.dim())) for amount in both.get(axis, (0, 0))]
    if not isinstance(number, Tensor):
        return F.pad(x, flat, value=number or 0)
    inside = F.pad(torch.ones_like(x, dtype=torch.bool), flat, value=False)
    return torch.where(inside, F.pad(x, flat), number)


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    if not (before or after):
        return x
    size = x.shape[axis]
    kept = np.arange(max(-before, 0), size - max(-after, 0))
    sources = np.pad(kept, (max(before, 0), max(after, 0)), mode=mode)  # type: ignore[call-overload]  # a str
    return x.index_select(axis, torch.from_numpy(sources).to(x.device))


def _trilu(x: Tensor, k: Integers | None = None, *, upper: int = 1) -> Tensor:
    diagonal = 0 if k is None else integer(k)
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def _depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b, deep = blocksize, c // blocksize**2
    if mode == "DCR":
        blocks = x.reshape(n, b, b, deep, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, deep, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, deep, h * b, w * b)


def _space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = x.reshape(n, c, h // b, b, w // b, b).permute(order)
    return blocks.reshape(n, c * b * b, h // b, w // b)


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def _range(start: Tensor, limit: Tensor, delta: Tensor, *, stash_type: int = 1) -> Tensor:
    bounds = (start.item(), limit.item(), delta.item())
    count = max(0, int(np.ceil((bounds[1] - bounds[0]) / bounds[2])))
    return start + delta * torch.arange(count, dtype=start.dtype, device=start.device)


def _constant_of_shape(
    shape: Integers, *, like: Tensor, value: float = 0.0, dtype: torch.dtype | None = None
) -> Tensor:
    return torch.full(integers(shape), value, dtype=dtype or like.dtype, device=like.device)


def _eye_like(x: Tensor, *, k: int = 0, dtype: torch.dtype | None = None) -> Tensor:
    ones = torch.ones(tuple(x.shape), dtype=dtype or x.dtype, device=x.device)
    return torch.tril(torch.triu(ones, k), k)


SHAPE: dict[str, Function] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
