"""Pooling over windows and over all of space, and Resize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .common import (
    CUBE,
    IMAGE,
    LINE,
    Case,
    Fixed,
    distinct,
    i,
    row,
    same,
    x,
)


def _max_pool_rows() -> list[Case]:
    image = distinct(2, 4, 7, 6)
    pool = lambda **kw: lambda a: F.max_pool2d(a, **kw)  # noqa: E731  # a row needs an expression
    low = -1e9  # what auto_pad pads a maximum with
    return [
        row(pool(kernel_size=2), image, kernel_shape=[2, 2], strides=[2, 2]),
        row(pool(kernel_size=3, stride=1), image, kernel_shape=[3, 3]),
        row(
            pool(kernel_size=3, stride=2, padding=1), image, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
        row(
            pool(kernel_size=3, stride=2, ceil_mode=True),
            image,
            kernel_shape=[3, 3],
            strides=[2, 2],
            ceil_mode=1,
        ),
        row(pool(kernel_size=2, stride=1, dilation=2), image, kernel_shape=[2, 2], dilations=[2, 2]),
        row(
            same(pool(kernel_size=3, stride=2), 2, 3, False, low),
            image,
            kernel_shape=[3, 3],
            strides=[2, 2],
            auto_pad="SAME_UPPER",
        ),
        row(
            same(pool(kernel_size=3, stride=2), 2, 3, True, low),
            image,
            kernel_shape=[3, 3],
            strides=[2, 2],
            auto_pad="SAME_LOWER",
        ),
        row(pool(kernel_size=2, stride=1), image, kernel_shape=[2, 2], outputs=2),
        row(pool(kernel_size=2, stride=1), image, kernel_shape=[2, 2], outputs=2, storage_order=1),
        row(lambda a: F.max_pool1d(a, 3, 2), distinct(2, 3, 9), kernel_shape=[3], strides=[2]),
        row(lambda a: F.max_pool3d(a, 2), distinct(1, 2, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    ]


def _average_pool_rows() -> list[Case]:
    pool = lambda **kw: lambda a: F.avg_pool2d(a, **kw)  # noqa: E731  # a row needs an expression
    k3: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}
    torch3: dict[str, Any] = {"kernel_size": 3, "stride": 2}

    def inside(first: bool) -> Callable[..., Any]:
        """The mean over what is inside: sums over the padded image, divided by the same of ones."""
        sums = same(lambda a: F.avg_pool2d(a, 3, 2), 2, 3, first)
        return lambda a: sums(a) / sums(torch.ones_like(a))

    return [
        row(pool(kernel_size=2), IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
        row(pool(kernel_size=3, stride=1), IMAGE, kernel_shape=[3, 3]),
        row(pool(**torch3, padding=1, count_include_pad=False), IMAGE, **k3, pads=[1] * 4),
        row(pool(**torch3, padding=1), IMAGE, **k3, pads=[1] * 4, count_include_pad=1),
        row(pool(**torch3, ceil_mode=True), IMAGE, **k3, ceil_mode=1),
        row(
            pool(**torch3, padding=1, ceil_mode=True),
            IMAGE,
            **k3,
            pads=[1] * 4,
            ceil_mode=1,
            count_include_pad=1,
            opset=19,
        ),
        row(
            pool(**torch3, padding=1, ceil_mode=True, count_include_pad=False),
            IMAGE,
            **k3,
            pads=[1] * 4,
            ceil_mode=1,
        ),
        row(inside(False), IMAGE, **k3, auto_pad="SAME_UPPER"),
        row(inside(True), IMAGE, **k3, auto_pad="SAME_LOWER"),
        row(lambda a: F.avg_pool1d(a, 3, 2), LINE, kernel_shape=[3], strides=[2]),
        row(lambda a: F.avg_pool3d(a, 2), CUBE, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        row(
            lambda a: F.conv2d(a, torch.full((4, 1, 2, 2), 0.25, dtype=a.dtype), groups=4, dilation=2),
            IMAGE,
            kernel_shape=[2, 2],
            dilations=[2, 2],
            opset=19,
        ),
    ]


def _resize(**kw: Any) -> Callable[..., Any]:
    return lambda a: F.interpolate(a, **kw)


def _resize_rows() -> list[Case]:
    image, none = x(1, 2, 4, 5), None
    double, half = Fixed(np.float32([1, 1, 2, 2])), Fixed(np.float32([1, 1, 0.5, 0.6]))
    up = Fixed(np.float32([1, 1, 1.5, 2.25]))
    by_size = i(1, 2, 7, 9)
    region = Fixed(np.float32([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9]))
    linear = {"mode": "bilinear", "recompute_scale_factor": False}
    rows = [
        row(
            _resize(scale_factor=2, mode="nearest"),
            image,
            none,
            double,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        row(
            _resize(size=(7, 9), mode="nearest"),
            image,
            none,
            none,
            by_size,
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        row(_resize(scale_factor=2, **linear), image, none, double, mode="linear"),
        row(_resize(scale_factor=(1.5, 2.25), **linear), image, none, up, mode="linear"),
        row(_resize(size=(7, 9), mode="bilinear"), image, none, none, by_size, mode="linear"),
        row(
            _resize(size=(7, 9), mode="bilinear", align_corners=True),
            image,
            none,
            none,
            by_size,
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        row(_resize(size=(7, 9), mode="bilinear"), image, none, none, i(7, 9), mode="linear", axes=[2, 3]),
    ]
    # torch has none of these modes, and onnx.reference has the weights of a cubic in float32
    rows.append(row(None, image, none, none, by_size, mode="cubic"))
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    for scales in (half, up):
        for coordinates in modes:
            rows.append(
                row(
                    None,
                    image,
                    none,
                    scales,
                    mode="linear",
                    coordinate_transformation_mode=coordinates,
                    opset=19,
                )
            )
            rows.append(
                row(
                    None,
                    image,
                    none,
                    scales,
                    mode="nearest",
                    coordinate_transformation_mode=coordinates,
                    opset=19,
                )
            )
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        rows.append(row(None, image, none, up, mode="nearest", nearest_mode=rounding))
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0}
    rows.append(row(None, image, region, none, i(1, 2, 3, 3), mode="linear", **crop))
    return rows


POOLING: dict[str, list[Case]] = {
    "AveragePool": _average_pool_rows(),
    "GlobalAveragePool": [
        row(lambda a: a.mean((2, 3), keepdim=True), IMAGE),
        row(lambda a: a.mean(2, keepdim=True), LINE),
    ],
    "GlobalLpPool": [
        row(lambda a: (a**2).sum((2, 3), keepdim=True).sqrt(), IMAGE),
        row(lambda a: (a.abs() ** 3).sum((2, 3), keepdim=True) ** (1 / 3), IMAGE, p=3),
    ],
    "GlobalMaxPool": [
        row(lambda a: a.amax((2, 3), keepdim=True), IMAGE),
        row(lambda a: a.amax(2, keepdim=True), LINE),
    ],
    "LRN": [
        row(
            lambda a: F.local_response_norm(a, 3, 0.5, 0.75, 1.5),
            IMAGE,
            size=3,
            alpha=0.5,
            beta=0.75,
            bias=1.5,
        )
    ],
    "LpPool": [
        row(lambda a: F.avg_pool2d(a**2, 3, 2).mul(9).sqrt(), IMAGE, kernel_shape=[3, 3], strides=[2, 2]),
        row(
            lambda a: F.avg_pool2d(a.abs() ** 3, 2, 2).mul(4) ** (1 / 3),
            IMAGE,
            kernel_shape=[2, 2],
            strides=[2, 2],
            p=3,
        ),
    ],
    "MaxPool": _max_pool_rows(),
    "Resize": _resize_rows(),
}
