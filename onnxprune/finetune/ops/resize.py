"""Resize: separable and linear, so each axis is a weighted sum of a few slices.

`taps` gives, for an axis, the slices and weights of every output index. Coordinates are computed in float32,
as onnxruntime does: where a sample lies between two neighbours, the last digit decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnxprune.finetune.ops.common import Function, Integers, integers

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Axis:
    """How an axis of `size` entries becomes one of `length`; `low` and `high` bound the part taken."""

    size: int
    length: int
    scale: float
    low: float
    high: float
    mode: str
    coordinates: str
    rounding: str
    cubic: float
    exclude_outside: bool
    antialias: bool


def _centre(x: Array, a: Axis) -> Array:
    return (x + np.float32(0.5)) / np.float32(a.scale) - np.float32(0.5)


def _pytorch_half_pixel(x: Array, a: Axis) -> Array:
    return _centre(x, a) if a.length > 1 else np.zeros_like(x)


def _align_corners(x: Array, a: Axis) -> Array:
    return np.zeros_like(x) if a.length == 1 else x * np.float32(a.size - 1) / np.float32(a.length - 1)


def _symmetric(x: Array, a: Axis) -> Array:
    adjustment = np.float32(a.length / (a.scale * a.size))
    centre = np.float32(a.size) / 2
    offset = centre * (1 - adjustment)
    shifted: Array = (offset + (x + np.float32(0.5)) / np.float32(a.scale) - np.float32(0.5)).astype(
        np.float32
    )
    return shifted


def _asymmetric(x: Array, a: Axis) -> Array:
    return x / np.float32(a.scale)


def _crop(x: Array, a: Axis) -> Array:
    last = np.float32(a.size - 1)
    if a.length == 1:
        return np.full_like(x, 0.5 * (a.low + a.high) * last)
    return np.float32(a.low) * last + x * np.float32(a.high - a.low) * last / np.float32(a.length - 1)


_COORDINATES: dict[str, Callable[[Array, Axis], Array]] = {
    "half_pixel": _centre,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_crop_and_resize": _crop,
}
_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _hat(distance: Array, a: Axis) -> Array:
    weights: Array = np.maximum(0, 1 - np.abs(distance))
    return weights


def _cubic(distance: Array, a: Axis) -> Array:
    """Keys 1981, with a free coefficient."""
    x, c = np.abs(distance), a.cubic
    near = ((c + 2) * x - (c + 3)) * x * x + 1
    far = ((c * x - 5 * c) * x + 8 * c) * x - 4 * c
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


_KERNELS: dict[str, tuple[int, Callable[[Array, Axis], Array]]] = {"linear": (1, _hat), "cubic": (2, _cubic)}


@lru_cache(maxsize=256)
def taps(a: Axis) -> tuple[Array, Array, Array]:
    """Indices and weights [taps, length] of what each output index sums, and which lie outside the image."""
    at = _COORDINATES[a.coordinates](np.arange(a.length, dtype=np.float32), a)
    outside = (at < 0) | (at > a.size - 1)
    if a.mode == "nearest":
        place = _ROUNDING[a.rounding](at).astype(np.int64)
        return np.clip(place, 0, a.size - 1)[None], np.ones((1, a.length)), outside
    reach, kernel = _KERNELS[a.mode]
    stretch = min(a.scale, 1.0) if a.antialias else 1.0
    radius = ceil(reach / stretch)
    at = at.astype(np.float64)
    if a.mode == "linear" and not a.antialias:
        at = np.clip(at, 0, a.size - 1)
    place = np.floor(at).astype(np.int64) + np.arange(1 - radius, radius + 1)[:, None]
    weights = kernel((place - at) * stretch, a)
    if a.exclude_outside or a.antialias:
        weights = np.where((place >= 0) & (place < a.size), weights, 0)
    if a.exclude_outside or a.antialias:
        weights = weights / weights.sum(0)
    return np.clip(place, 0, a.size - 1), weights, outside


def _resize_axis(x: Tensor, axis: int, a: Axis) -> Tensor:
    indices, weights, _ = taps(a)
    slices = [x.index_select(axis, torch.from_numpy(row).to(x.device)) for row in indices]
    if a.mode == "nearest":
        return slices[0]
    along = [-1, *[1] * (x.dim() - axis - 1)]
    parts = (
        part * torch.from_numpy(row).to(x.device, x.dtype).reshape(along)
        for part, row in zip(slices, weights, strict=True)
    )
    return sum(parts, torch.zeros((), dtype=x.dtype, device=x.device))


def _targets(
    shape: Sequence[int], scales: list[float] | None, sizes: list[int] | None, policy: str
) -> tuple[list[int], list[float]]:
    """Length and scale of each axis that is resized."""
    if sizes is None:
        assert scales is not None
        return [floor(size * scale) for size, scale in zip(shape, scales, strict=True)], scales
    ratios = [wanted / size for wanted, size in zip(sizes, shape, strict=True)]
    if policy == "stretch":
        return sizes, ratios
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [floor(size * ratio + 0.5) for size in shape], [ratio] * len(shape)


def _floats(value: Sequence[float] | Tensor | None) -> list[float] | None:
    entries = value.tolist() if isinstance(value, Tensor) else value
    return [float(entry) for entry in entries] if entries else None


def _resize(
    x: Tensor,
    roi: Sequence[float] | Tensor | None = None,
    scales: Sequence[float] | Tensor | None = None,
    sizes: Integers | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    along = [axis % x.dim() for axis in axes] if axes is not None else list(range(x.dim()))
    region = _floats(roi) or [*[0.0] * len(along), *[1.0] * len(along)]
    wanted = integers(sizes) if sizes is not None else []
    lengths, ratios = _targets(
        [x.shape[axis] for axis in along], _floats(scales), wanted or None, keep_aspect_ratio_policy
    )
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    for entry, axis in enumerate(along):
        a = Axis(
            size=x.shape[axis],
            length=lengths[entry],
            scale=ratios[entry],
            low=region[entry],
            high=region[entry + len(along)],
            mode=mode,
            coordinates=coordinate_transformation_mode,
            rounding=nearest_mode,
            cubic=cubic_coeff_a,
            exclude_outside=bool(exclude_outside),
            antialias=bool(antialias),
        )
        if a.length == a.size and a.scale == 1 and not crops:
            continue
        x = _resize_axis(x, axis, a)
        if crops:
            beyond = torch.from_numpy(taps(a)[2]).to(x.device).reshape(-1, *[1] * (x.dim() - axis - 1))
            x = torch.where(beyond, extrapolation_value, x)
    return x


RESIZE: dict[str, Function] = {"Resize": _resize}
