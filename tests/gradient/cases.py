"""One row an op and variant: inputs, attributes, and the same function in torch, whose autograd is the oracle.

Float arrays are differentiated by; integer and boolean arrays, and `Fixed` ones, are constants of the graph. Float
attributes are exact in float32, which is how ONNX stores them. A row without a torch function is checked against finite differences alone, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fixed:
    """A float input that is a constant of the graph."""

    array: Array


@dataclass(frozen=True)
class Case:
    inputs: Sequence[Array | Fixed | None]
    torch: Callable[..., Any] | None
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    single: bool = False  # the op itself exists in float32 only


def x(*shape: int, low: float | None = None, high: float = 1.0) -> Array:
    """Standard normal, or uniform in [low, high]; the same for the same shape."""
    rng = np.random.default_rng(sum(d * 31**i for i, d in enumerate(shape)) + 7)
    return rng.normal(size=shape) if low is None else rng.uniform(low, high, size=shape)


def distinct(*shape: int) -> Array:
    """No two entries nearer than 0.01, so that no maximum is near a tie."""
    return np.random.default_rng(3).permutation(int(np.prod(shape))).reshape(shape) * 0.01 - 0.3


def i(*entries: int) -> Array:
    return np.array(entries, dtype=np.int64)


def row(
    op: Callable[..., Any] | None,
    *inputs: Array | Fixed | None,
    opset: int = 18,
    outputs: int = 1,
    single: bool = False,
    **attributes: Any,
) -> Case:
    return Case(inputs, op, attributes, opset, outputs, single)


A, B = x(2, 3, 4), x(3, 1)
POSITIVE, UNIT = x(2, 3, low=0.5, high=2.0), x(2, 3, low=-0.9, high=0.9)
IMAGE, LINE, CUBE = x(2, 4, 7, 6), x(2, 4, 9), x(1, 2, 5, 4, 5)


def _same(
    f: Callable[..., Any], stride: int, extent: int, first: bool, value: float = 0.0
) -> Callable[..., Any]:
    """`f` after padding as auto_pad does."""

    def padded(image: torch.Tensor, *rest: Any) -> Any:
        pads: list[int] = []
        for size in reversed(image.shape[2:]):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            pads += [total - total // 2, total // 2] if first else [total // 2, total - total // 2]
        return f(F.pad(image, pads, value=value), *rest)

    return padded


def _matrix_rows() -> list[Case]:
    shapes = [
        ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((4,), (4, 5)),
        ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)), ((5, 1, 3, 4), (2, 4, 3)),
        ((1, 3, 4), (6, 4, 2)),
    ]  # fmt: skip
    return [row(torch.matmul, x(*a), x(*b)) for a, b in shapes]


def _conv_rows() -> list[Case]:
    def conv(rank: int, **kw: Any) -> Callable[..., Any]:
        return lambda *args: (F.conv1d, F.conv2d, F.conv3d)[rank - 1](*args, **kw)

    def asymmetric(pads: list[int], **kw: Any) -> Callable[..., Any]:
        return lambda a, *rest: F.conv2d(F.pad(a, pads), *rest, **kw)

    k3 = x(4, 4, 3, 3)
    return [
        row(conv(2), IMAGE, k3, x(4)),
        row(conv(2), IMAGE, x(5, 4, 1, 1)),
        row(conv(2, padding=1), IMAGE, k3, x(4), pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        row(conv(2, padding=3), IMAGE, k3, pads=[3, 3, 3, 3]),
        row(conv(2, padding=1, stride=2), IMAGE, k3, pads=[1, 1, 1, 1], strides=[2, 2]),
        row(conv(2, stride=(3, 2)), IMAGE, x(4, 4, 2, 1), strides=[3, 2]),
        row(conv(2, stride=3), IMAGE, x(6, 4, 1, 1), x(6), strides=[3, 3]),
        row(conv(2, dilation=2, padding=2), IMAGE, k3, pads=[2, 2, 2, 2], dilations=[2, 2]),
        row(
            conv(2, dilation=2, stride=2, padding=1),
            IMAGE,
            k3,
            pads=[1] * 4,
            dilations=[2, 2],
            strides=[2, 2],
        ),
        row(conv(2, groups=2, padding=1), IMAGE, x(6, 2, 3, 3), x(6), pads=[1] * 4, group=2),
        row(
            conv(2, groups=2, padding=1, stride=2),
            IMAGE,
            x(6, 2, 3, 3),
            pads=[1] * 4,
            group=2,
            strides=[2, 2],
        ),
        row(conv(2, groups=4, padding=1), IMAGE, x(4, 1, 3, 3), pads=[1] * 4, group=4),
        row(
            conv(2, groups=4, padding=1, stride=2),
            IMAGE,
            x(4, 1, 3, 3),
            pads=[1] * 4,
            group=4,
            strides=[2, 2],
        ),
        row(conv(2, groups=4, padding=1), IMAGE, x(8, 1, 3, 3), x(8), pads=[1] * 4, group=4),
        row(asymmetric([0, 2, 1, 0]), IMAGE, k3, pads=[1, 0, 0, 2]),
        row(asymmetric([0, 1, 0, 1], stride=2), IMAGE, k3, pads=[0, 0, 1, 1], strides=[2, 2]),
        row(_same(conv(2), 1, 3, False), IMAGE, k3, auto_pad="SAME_UPPER"),
        row(_same(conv(2), 1, 2, True), IMAGE, x(4, 4, 2, 2), auto_pad="SAME_LOWER"),
        row(_same(conv(2, stride=2), 2, 3, False), IMAGE, k3, auto_pad="SAME_UPPER", strides=[2, 2]),
        row(_same(conv(2, stride=2), 2, 3, True), IMAGE, k3, auto_pad="SAME_LOWER", strides=[2, 2]),
        row(conv(2, stride=2), IMAGE, k3, auto_pad="VALID", strides=[2, 2]),
        row(conv(1, padding=2, stride=2), LINE, x(3, 4, 5), x(3), pads=[2, 2], strides=[2]),
        row(conv(1), LINE, x(3, 4, 3)),
        row(conv(3, padding=1), CUBE, x(3, 2, 3, 3, 3), x(3), pads=[1] * 6),
        row(conv(3, stride=2), CUBE, x(3, 2, 2, 2, 2), strides=[2, 2, 2]),
    ]


def _conv_transpose_rows() -> list[Case]:
    def up(rank: int, **kw: Any) -> Callable[..., Any]:
        return lambda *a: (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1](*a, **kw)

    def cut(top: int, bottom: int, left: int, right: int, **kw: Any) -> Callable[..., Any]:
        def f(*a: Any) -> Any:
            y = F.conv_transpose2d(*a, **kw)
            return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]

        return f

    k2, k3 = x(4, 5, 2, 2), x(4, 5, 3, 3)
    return [
        row(up(2), IMAGE, k3, x(5)),
        row(up(2, stride=2), IMAGE, k2, x(5), strides=[2, 2]),
        row(
            up(2, stride=2, padding=1, output_padding=1),
            IMAGE,
            k3,
            strides=[2, 2],
            pads=[1] * 4,
            output_padding=[1, 1],
        ),
        row(
            up(2, stride=2, dilation=3, output_padding=1),
            IMAGE,
            k3,
            strides=[2, 2],
            dilations=[3, 3],
            output_padding=[1, 1],
        ),
        row(up(2, groups=2, stride=2), IMAGE, x(4, 3, 3, 3), x(6), strides=[2, 2], group=2),
        row(cut(1, 0, 0, 2), IMAGE, k3, pads=[1, 0, 0, 2]),
        row(cut(0, 1, 0, 1, stride=2), IMAGE, k3, strides=[2, 2], auto_pad="SAME_UPPER"),
        row(cut(1, 0, 1, 0, stride=2), IMAGE, k3, strides=[2, 2], auto_pad="SAME_LOWER"),
        row(up(1, stride=3), LINE, x(4, 2, 5), strides=[3]),
        row(up(3, stride=2), CUBE, x(2, 3, 2, 2, 2), x(3), strides=[2, 2, 2]),
    ]


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
            _same(pool(kernel_size=3, stride=2), 2, 3, False, low),
            image,
            kernel_shape=[3, 3],
            strides=[2, 2],
            auto_pad="SAME_UPPER",
        ),
        row(
            _same(pool(kernel_size=3, stride=2), 2, 3, True, low),
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

    def same(first: bool) -> Callable[..., Any]:
        """A mean over what is inside: sum over the padded image, divided by how many ones are in the window."""
        sums = _same(lambda a: F.avg_pool2d(a, 3, 2), 2, 3, first)
        return lambda a: sums(a) / sums(torch.ones_like(a))

    return [
        row(pool(kernel_size=2), IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
        row(pool(kernel_size=3, stride=1), IMAGE, kernel_shape=[3, 3]),
        row(pool(**torch3, padding=1, count_include_pad=False), IMAGE, **k3, pads=[1] * 4),
        row(pool(**torch3, padding=1), IMAGE, **k3, pads=[1] * 4, count_include_pad=1),
        row(pool(**torch3, ceil_mode=True), IMAGE, **k3, ceil_mode=1),
        row(pool(**torch3, padding=1, ceil_mode=True), IMAGE, **k3, pads=[1] * 4, ceil_mode=1, count_include_pad=1, opset=19),
        row(pool(**torch3, padding=1, ceil_mode=True, count_include_pad=False), IMAGE, **k3, pads=[1] * 4, ceil_mode=1),
        row(same(False), IMAGE, **k3, auto_pad="SAME_UPPER"),
        row(same(True), IMAGE, **k3, auto_pad="SAME_LOWER"),
        row(lambda a: F.avg_pool1d(a, 3, 2), LINE, kernel_shape=[3], strides=[2]),
        row(lambda a: F.avg_pool3d(a, 2), CUBE, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        row(lambda a: F.conv2d(a, torch.full((4, 1, 2, 2), 0.25, dtype=a.dtype), groups=4, dilation=2), IMAGE, kernel_shape=[2, 2], dilations=[2, 2], opset=19),
    ]  # fmt: skip


def _reduce_rows(name: str, over: Callable[..., Any], data: Array = A) -> list[Case]:
    """`over(x, dims, keepdim)` in every form of axes."""
    everything = tuple(range(data.ndim))
    return [
        row(lambda a: over(a, (1,), True), data, i(1)),
        row(lambda a: over(a, (0, 2), False), data, i(0, -1), keepdims=0),
        row(lambda a: over(a, everything, True), data),
        row(lambda a: over(a, everything, False), data, keepdims=0),
    ]


def _prod(a: torch.Tensor, dims: tuple[int, ...], keep: bool) -> torch.Tensor:
    for dim in sorted(dims, reverse=True):
        a = torch.prod(a, dim, keepdim=keep)
    return a


def _with_zeros() -> Array:
    data = A.copy()
    data[0, 0, 0] = data[1, 0, 1] = data[1, 1, 1] = 0.0
    return data


_KEEP_NO_AXES = {"noop_with_empty_axes": 1}


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


def _batch_norm(a: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    s, b, m, v = (vector.reshape(-1, *[1] * (a.ndim - 2)) for vector in (scale, bias, mean, variance))
    return (a - m) / torch.sqrt(v + 2**-10) * s + b


def _selu(a: torch.Tensor) -> torch.Tensor:
    """torch has more digits of the two constants than ONNX, which has them in float32."""
    alpha, gamma = 1.67326319217681884765625, 1.05070102214813232421875
    return gamma * torch.where(a > 0, a, alpha * torch.expm1(a))


def _depth_to_space_dcr(a: torch.Tensor, b: int = 2) -> torch.Tensor:
    n, c, h, w = a.shape
    blocks = a.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(a: torch.Tensor, b: int = 2) -> torch.Tensor:
    n, c, h, w = a.shape
    return (
        a.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)
    )


def _scatter_nd(a: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    return a.index_put((torch.tensor([0, 2]),), updates)


CASES: dict[str, list[Case]] = {
    # one element
    "Abs": [row(torch.abs, A)],
    "Acos": [row(torch.acos, UNIT)],
    "Acosh": [row(torch.acosh, POSITIVE + 1)],
    "Asin": [row(torch.asin, UNIT)],
    "Asinh": [row(torch.asinh, A)],
    "Atan": [row(torch.atan, A)],
    "Atanh": [row(torch.atanh, UNIT)],
    "Cast": [row(lambda a: a, A, to=1)],
    "CastLike": [row(lambda a: a, A, Fixed(np.float32([1])))],
    "Celu": [row(F.celu, A), row(lambda a: F.celu(a, 0.75), A, alpha=0.75)],
    "Clip": [
        row(lambda a: a.clamp(-0.5, 0.8), A, Fixed(np.float64(-0.5)), Fixed(np.float64(0.8))),
        row(lambda a: a.clamp(min=0), A, Fixed(np.float64(0))),
        row(lambda a: a.clamp(max=0.4), A, None, Fixed(np.float64(0.4))),
        row(lambda a, low, high: a.clamp(low, high), A, np.float64(-0.5), np.float64(0.8)),
        row(lambda a, low, high: a.clamp(low, high), A, np.float64(0.5), np.float64(-0.8)),
    ],
    "Cos": [row(torch.cos, A)],
    "Cosh": [row(torch.cosh, A)],
    "Dropout": [row(lambda a: a, A), row(lambda a: a, A, Fixed(np.float32(0.5)), np.array(False), outputs=2)],
    "Elu": [row(F.elu, A), row(lambda a: F.elu(a, 0.25), A, alpha=0.25)],
    "Erf": [row(torch.erf, A)],
    "Exp": [row(torch.exp, A)],
    "Gelu": [row(F.gelu, A, opset=20), row(lambda a: F.gelu(a, approximate="tanh"), A, opset=20, approximate="tanh")],
    "HardSigmoid": [
        row(lambda a: (0.2 * a + 0.5).clamp(0, 1), 3 * A),
        row(lambda a: (0.125 * a + 0.25).clamp(0, 1), 3 * A, alpha=0.125, beta=0.25),
    ],
    "HardSwish": [row(F.hardswish, 3 * A)],
    "Identity": [row(lambda a: a, A)],
    "LeakyRelu": [row(F.leaky_relu, A), row(lambda a: F.leaky_relu(a, 0.25), A, alpha=0.25)],
    "Log": [row(torch.log, POSITIVE)],
    "Mish": [row(F.mish, A)],
    "Neg": [row(torch.neg, A)],
    "Reciprocal": [row(torch.reciprocal, POSITIVE)],
    "Relu": [row(torch.relu, A)],
    "Selu": [row(_selu, A)],
    "Shrink": [row(lambda a: F.hardshrink(a, 0.5), A), row(lambda a: F.softshrink(a, 0.25), A, lambd=0.25, bias=0.25)],
    "Sigmoid": [row(torch.sigmoid, A)],
    "Sin": [row(torch.sin, A)],
    "Sinh": [row(torch.sinh, A)],
    "Softplus": [row(F.softplus, A)],
    "Softsign": [row(F.softsign, A)],
    "Sqrt": [row(torch.sqrt, POSITIVE)],
    "Swish": [row(F.silu, A, opset=24), row(lambda a: a * torch.sigmoid(1.75 * a), A, opset=24, alpha=1.75)],
    "Tan": [row(torch.tan, UNIT)],
    "Tanh": [row(torch.tanh, A)],
    "ThresholdedRelu": [row(lambda a: F.threshold(a, 1.0, 0.0), A), row(lambda a: F.threshold(a, 0.2, 0.0), A, alpha=0.2)],
    # operands broadcast over each other
    "Add": [row(torch.add, A, B), row(torch.add, A, A + 1), row(torch.add, x(4), A), row(torch.add, np.float64(2), A)],
    "Div": [row(torch.div, A, x(3, 1, low=0.5)), row(torch.div, x(4), x(2, 3, 4, low=0.5))],
    "Max": [
        row(torch.maximum, A, x(3, 4)),
        row(lambda a, b, c: torch.maximum(torch.maximum(a, b), c), A, x(3, 4), x(1)),
        row(torch.maximum, np.ones((2, 2)), np.array([[1.0, 0.0], [1.0, 2.0]])),
        row(lambda a, b, c: torch.stack([a, b, c]).amax(0), np.ones(3), np.ones(3), np.array([1.0, 0.0, 2.0])),
        row(lambda a: a, A),
    ],
    "Mean": [row(lambda a, b, c: (a + b + c) / 3, A, B, x(4)), row(lambda a: a, A)],
    "Min": [row(torch.minimum, A, x(3, 4)), row(torch.minimum, np.ones(3), np.array([1.0, 0.0, 2.0]))],
    "Mul": [row(torch.mul, A, B), row(torch.mul, x(1), A), row(torch.mul, x(4, 1, 3), x(2, 1))],
    "PRelu": [row(lambda a, s: torch.where(a > 0, a, s * a), A, s) for s in (B, x(1), x(3, 4))],
    "Pow": [
        row(torch.pow, POSITIVE, x(3)),
        row(lambda a: a**2, A, Fixed(np.float64(2))),
        row(lambda a: a**3, A, np.array(3, dtype=np.int64)),
        row(lambda a: torch.pow(a, torch.tensor([0.0, 1.0, 2.0])), _with_zeros()[:, :, :3], Fixed(np.float64([0, 1, 2]))),
    ],
    "Sub": [row(torch.sub, A, B), row(torch.sub, x(4), A)],
    "Sum": [row(lambda a, b, c: a + b + c, A, B, x(4)), row(lambda a: a, A)],
    "Where": [row(lambda a, b: torch.where(torch.tensor([[True], [False], [True]]), a, b), np.array([[True], [False], [True]]), x(4), A)],
    # moves
    "Concat": [
        row(lambda a, b: torch.cat([a, b], 1), A, x(2, 5, 4), axis=1),
        row(lambda a, b, c: torch.cat([a, b, c], -2), A, x(2, 5, 4), x(2, 1, 4), axis=-2),
        row(lambda a, b: torch.cat([a, b], -1), A, x(2, 3, 2), axis=-1),
        row(lambda a: a, A, axis=0),
    ],
    "DepthToSpace": [
        row(_depth_to_space_dcr, x(2, 8, 3, 2), blocksize=2),
        row(lambda a: F.pixel_shuffle(a, 2), x(2, 8, 3, 2), blocksize=2, mode="CRD"),
    ],
    "Expand": [row(lambda a: a.expand(2, 3, 4), B, i(2, 3, 4)), row(lambda a: a + torch.zeros(2, 1, 1), x(3, 4), i(2, 1, 1))],
    "Flatten": [row(lambda a: a.flatten(1), A), row(lambda a: a.reshape(6, 4), A, axis=2), row(lambda a: a.reshape(1, 24), A, axis=0)],
    "Gather": [
        row(lambda a: a[:, [0, 2, 0]], A, i(0, 2, 0), axis=1),
        row(lambda a: a[1], A, np.array(1)),
        row(lambda a: a[..., -1], A, np.array(-1), axis=-1),
        row(lambda a: a[:, :, torch.tensor([[0, 1], [1, -1]])], A, np.array([[0, 1], [1, -1]]), axis=2),
        row(lambda a: a[[1, 1, 0]], x(2, 5), np.int32([1, 1, 0])),
    ],
    "GatherElements": [
        row(lambda a: torch.gather(a, 1, torch.tensor([[0, 0, 2], [1, 1, 1]])), x(2, 3), np.array([[0, 0, 2], [1, 1, 1]]), axis=1),
        row(lambda a: torch.gather(a, 0, torch.tensor([[0, 1, 1]])), x(2, 3), np.array([[0, 1, 1]])),
    ],
    "GatherND": [row(lambda a: a[[0, 1, 0], [2, 0, 2]], A, np.array([[0, 2], [1, 0], [0, 2]]))],
    "Pad": [
        row(lambda a: F.pad(a, [1, 2, 0, 1]), A, i(0, 0, 1, 0, 1, 2)),
        row(lambda a: F.pad(a, [-1, 2]), A, i(0, 0, -1, 0, 0, 2)),
        row(lambda a, c: torch.cat([c.expand(2, 2, 4), a[:, :2]], 1), A, i(0, 2, 0, 0, -1, 0), np.float64(0.7)),
        row(lambda a: F.pad(a, [2, 1], mode="reflect"), A, i(0, 0, 2, 0, 0, 1), mode="reflect"),
        row(lambda a: F.pad(a, [3, 1, 1, 2], mode="replicate"), IMAGE, i(0, 0, 1, 3, 0, 0, 2, 1), mode="edge"),
        row(lambda a: F.pad(a, [2, 1], mode="reflect"), A, i(2, 1), None, i(-1), mode="reflect"),
        row(lambda a: F.pad(a, [0, 0, 1, 2]), A, i(1, 2), None, i(1)),
    ],
    "Reshape": [row(lambda a: a.reshape(6, 4), A, i(-1, 4)), row(lambda a: a.reshape(2, 12), A, i(0, -1))],
    "ScatterElements": [
        row(lambda a, u: a.scatter(1, torch.tensor([[0, 2], [1, 0]]), u), x(2, 3), np.array([[0, 2], [1, 0]]), x(2, 2), axis=1),
        row(lambda a, u: a.scatter_add(0, torch.tensor([[0, 0], [0, 1]]), u), x(3, 2), np.array([[0, 0], [0, 1]]), x(2, 2), reduction="add"),
    ],
    "ScatterND": [
        row(_scatter_nd, x(3, 4), np.array([[0], [2]]), x(2, 4)),
        row(lambda a, u: a.index_put((torch.tensor([0, 0]),), u, accumulate=True), x(3, 4), np.array([[0], [0]]), x(2, 4), reduction="add"),
    ],
    "Slice": [
        row(lambda a: a[:, 1:3], A, i(1), i(3), i(1)),
        row(lambda a: a[1:, :-1], A, i(1, 0), i(99, -1)),
        row(lambda a: a[:, -2:, 1:2], A, i(-2, 1), i(2**62, 2), i(1, -1), i(1, 1)),
        row(lambda a: a[:, :, ::2], A, i(0), i(9), i(2), i(2)),
        row(lambda a: a[:, ::2, 1::2], A, i(0, 1), i(3, 4), i(-2, 2), i(2, 2)),
        row(lambda a: a.flip(2), A, i(-1), i(-(2**62)), i(2), i(-1)),
        row(lambda a: a[:, :, [3, 1]], A, i(3), i(0), i(2), i(-2)),
        row(lambda a: a[:, 1:], A, np.int32([1]), np.int32([3]), np.int32([1]), np.int32([1])),
        row(lambda a: a[:, :, ::3], A, np.int32([0]), np.int32([4]), np.int32([2]), np.int32([3])),
    ],
    "SpaceToDepth": [row(_space_to_depth, x(2, 3, 4, 6), blocksize=2)],
    "Split": [
        row(lambda a: torch.split(a, [1, 2], 1), A, i(1, 2), axis=1, outputs=2),
        row(lambda a: torch.split(a, 2, 2), A, axis=-1, outputs=2, num_outputs=2),
    ],
    "Squeeze": [row(lambda a: a.squeeze(1), B, i(1)), row(torch.squeeze, x(1, 3, 1))],
    "Tile": [row(lambda a: a.repeat(1, 3, 2), A, i(1, 3, 2))],
    "Transpose": [row(lambda a: a.permute(2, 0, 1), A, perm=[2, 0, 1]), row(lambda a: a.permute(2, 1, 0), A)],
    "Trilu": [row(torch.triu, A), row(lambda a: torch.tril(a, 1), A, np.array(1), upper=0)],
    "Unsqueeze": [row(lambda a: a[:, None, ..., None], A, i(1, -1))],
    # reductions
    "CumSum": [
        row(lambda a: a.cumsum(1), A, np.array(1)),
        row(lambda a: a.flip(2).cumsum(2).flip(2), A, np.array(-1), reverse=1),
        row(lambda a: a.cumsum(1) - a, A, np.array(1), exclusive=1),
    ],
    "ReduceL1": _reduce_rows("L1", lambda a, d, k: a.abs().sum(d, keepdim=k)),
    "ReduceL2": _reduce_rows("L2", lambda a, d, k: (a**2).sum(d, keepdim=k).sqrt()),
    "ReduceLogSum": _reduce_rows("LogSum", lambda a, d, k: a.sum(d, keepdim=k).log(), x(2, 3, 4, low=0.5)),
    "ReduceLogSumExp": _reduce_rows("LSE", lambda a, d, k: torch.logsumexp(a, d, keepdim=k)),
    "ReduceMax": [*_reduce_rows("Max", lambda a, d, k: a.amax(d, keepdim=k)), row(lambda a: a.amax(1), np.ones((2, 3)), i(1), keepdims=0)],
    "ReduceMean": [*_reduce_rows("Mean", lambda a, d, k: a.mean(d, keepdim=k)), row(lambda a: a, A, **_KEEP_NO_AXES)],
    "ReduceMin": _reduce_rows("Min", lambda a, d, k: a.amin(d, keepdim=k)),
    "ReduceProd": [*_reduce_rows("Prod", _prod), *_reduce_rows("Prod", _prod, _with_zeros())],
    "ReduceSum": [*_reduce_rows("Sum", lambda a, d, k: a.sum(d, keepdim=k)), row(lambda a: a, A, i(), **_KEEP_NO_AXES)],
    "ReduceSumSquare": _reduce_rows("SumSquare", lambda a, d, k: (a**2).sum(d, keepdim=k)),
    "TopK": [row(lambda a: a.topk(2, -1).values, A, i(2), outputs=2), row(lambda a: a.topk(2, 1, largest=False).values, A, i(2), axis=1, largest=0, outputs=2)],
    # normalisations
    "BatchNormalization": [
        row(_batch_norm, IMAGE, x(4), x(4), x(4), x(4, low=0.5), epsilon=2**-10),
        row(_batch_norm, x(5, 4), x(4), x(4), x(4), x(4, low=0.5), epsilon=2**-10),
    ],
    "GroupNormalization": [row(lambda a, s, b: F.group_norm(a, 2, s, b), IMAGE, x(4), x(4), num_groups=2, opset=21)],
    "InstanceNormalization": [row(lambda a, s, b: F.instance_norm(a, weight=s, bias=b), d, x(4), x(4)) for d in (IMAGE, LINE)],
    "LayerNormalization": [
        row(lambda a, s, b: F.layer_norm(a, (4,), s, b), A, x(4), x(4)),
        row(lambda a, s: F.layer_norm(a, (3, 4), s), A, x(3, 4), axis=1),
        row(lambda a, s, b: F.layer_norm(a, (3, 4), s, b, 0.125), A, x(3, 4), x(3, 4), axis=-2, epsilon=0.125),
    ],
    "LogSoftmax": [row(lambda a: a.log_softmax(-1), A), row(lambda a: a.log_softmax(1), A, axis=1)],
    "LpNormalization": [
        row(lambda a: F.normalize(a, dim=-1), A),
        row(lambda a: F.normalize(a, p=1, dim=1), A, p=1, axis=1),
    ],
    "MeanVarianceNormalization": [row(lambda a: F.instance_norm(a, eps=0.0), IMAGE, axes=[2, 3], single=True)],
    "RMSNormalization": [row(lambda a, s: F.rms_norm(a, (4,), s, 1e-5), A, x(4), opset=23)],
    "Softmax": [row(lambda a: a.softmax(-1), A), row(lambda a: a.softmax(1), A, axis=1)],
    # linear layers
    "Conv": _conv_rows(),
    "ConvTranspose": _conv_transpose_rows(),
    "Einsum": [
        row(partial(torch.einsum, e), x(*p), x(*q), equation=e)
        for e, p, q in [
            ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("ij,jk", (3, 4), (4, 5)), ("i,j->ij", (3,), (4,)),
            ("ij,ij->", (3, 4), (3, 4)), ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5)), ("ij,k->i", (3, 4), (5,)),
            ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)), ("...ij,jk->...ik", (2, 3, 4), (4, 5)),
        ]
    ] + [row(lambda a: torch.einsum("ij->ji", a), x(3, 4), equation="ij->ji")],
    "Gemm": [
        row(lambda a, b: a @ b, x(3, 4), x(4, 5)),
        row(lambda a, b, c: a @ b.T + c, x(3, 4), x(5, 4), x(5), transB=1),
        row(lambda a, b, c: 0.5 * a.T @ b + 2 * c, x(4, 3), x(4, 5), x(3, 1), transA=1, alpha=0.5, beta=2.0),
        row(lambda a, b, c: 0.5 * a.T @ b.T + c, x(4, 3), x(5, 4), np.float64(1), transA=1, transB=1, alpha=0.5),
        row(lambda a, b: a @ b, x(3, 1), x(1, 5)),
    ],
    "MatMul": _matrix_rows(),
    # pooling
    "AveragePool": _average_pool_rows(),
    "GlobalAveragePool": [row(lambda a: a.mean((2, 3), keepdim=True), IMAGE), row(lambda a: a.mean(2, keepdim=True), LINE)],
    "GlobalLpPool": [row(lambda a: (a**2).sum((2, 3), keepdim=True).sqrt(), IMAGE), row(lambda a: (a.abs() ** 3).sum((2, 3), keepdim=True) ** (1 / 3), IMAGE, p=3)],
    "GlobalMaxPool": [row(lambda a: a.amax((2, 3), keepdim=True), IMAGE), row(lambda a: a.amax(2, keepdim=True), LINE)],
    "LRN": [row(lambda a: F.local_response_norm(a, 3, 0.5, 0.75, 1.5), IMAGE, size=3, alpha=0.5, beta=0.75, bias=1.5)],
    "LpPool": [row(lambda a: F.avg_pool2d(a**2, 3, 2).mul(9).sqrt(), IMAGE, kernel_shape=[3, 3], strides=[2, 2]), row(lambda a: F.avg_pool2d(a.abs() ** 3, 2, 2).mul(4) ** (1 / 3), IMAGE, kernel_shape=[2, 2], strides=[2, 2], p=3)],
    "MaxPool": _max_pool_rows(),
    "Resize": _resize_rows(),
}  # fmt: skip
