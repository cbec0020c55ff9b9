"""Conv, ConvTranspose, Gemm, MatMul, Einsum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .common import (
    CUBE,
    IMAGE,
    LINE,
    Case,
    row,
    same,
    x,
)


def _matrix_rows() -> list[Case]:
    shapes = [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((3, 4), (2, 4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 5)),
        ((5, 1, 3, 4), (2, 4, 3)),
        ((1, 3, 4), (6, 4, 2)),
    ]
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
        row(same(conv(2), 1, 3, False), IMAGE, k3, auto_pad="SAME_UPPER"),
        row(same(conv(2), 1, 2, True), IMAGE, x(4, 4, 2, 2), auto_pad="SAME_LOWER"),
        row(same(conv(2, stride=2), 2, 3, False), IMAGE, k3, auto_pad="SAME_UPPER", strides=[2, 2]),
        row(same(conv(2, stride=2), 2, 3, True), IMAGE, k3, auto_pad="SAME_LOWER", strides=[2, 2]),
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


LINEAR: dict[str, list[Case]] = {
    "Conv": _conv_rows(),
    "ConvTranspose": _conv_transpose_rows(),
    "Einsum": [
        row(partial(torch.einsum, e), x(*p), x(*q), equation=e)
        for e, p, q in [
            ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
            ("ij,jk", (3, 4), (4, 5)),
            ("i,j->ij", (3,), (4,)),
            ("ij,ij->", (3, 4), (3, 4)),
            ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5)),
            ("ij,k->i", (3, 4), (5,)),
            ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
            ("...ij,jk->...ik", (2, 3, 4), (4, 5)),
        ]
    ]
    + [row(lambda a: torch.einsum("ij->ji", a), x(3, 4), equation="ij->ji")],
    "Gemm": [
        row(lambda a, b: a @ b, x(3, 4), x(4, 5)),
        row(lambda a, b, c: a @ b.T + c, x(3, 4), x(5, 4), x(5), transB=1),
        row(lambda a, b, c: 0.5 * a.T @ b + 2 * c, x(4, 3), x(4, 5), x(3, 1), transA=1, alpha=0.5, beta=2.0),
        row(
            lambda a, b, c: 0.5 * a.T @ b.T + c,
            x(4, 3),
            x(5, 4),
            np.float64(1),
            transA=1,
            transB=1,
            alpha=0.5,
        ),
        row(lambda a, b: a @ b, x(3, 1), x(1, 5)),
    ],
    "MatMul": _matrix_rows(),
}
