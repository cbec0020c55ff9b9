"""Reductions, in every form of axes, running sums and TopK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .common import (
    A,
    Array,
    Case,
    i,
    row,
    with_zeros,
    x,
)


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


_KEEP_NO_AXES = {"noop_with_empty_axes": 1}


REDUCTION: dict[str, list[Case]] = {
    "CumSum": [
        row(lambda a: a.cumsum(1), A, np.array(1)),
        row(lambda a: a.flip(2).cumsum(2).flip(2), A, np.array(-1), reverse=1),
        row(lambda a: a.cumsum(1) - a, A, np.array(1), exclusive=1),
    ],
    "ReduceL1": _reduce_rows("L1", lambda a, d, k: a.abs().sum(d, keepdim=k)),
    "ReduceL2": _reduce_rows("L2", lambda a, d, k: (a**2).sum(d, keepdim=k).sqrt()),
    "ReduceLogSum": _reduce_rows("LogSum", lambda a, d, k: a.sum(d, keepdim=k).log(), x(2, 3, 4, low=0.5)),
    "ReduceLogSumExp": _reduce_rows("LSE", lambda a, d, k: torch.logsumexp(a, d, keepdim=k)),
    "ReduceMax": [
        *_reduce_rows("Max", lambda a, d, k: a.amax(d, keepdim=k)),
        row(lambda a: a.amax(1), np.ones((2, 3)), i(1), keepdims=0),
    ],
    "ReduceMean": [
        *_reduce_rows("Mean", lambda a, d, k: a.mean(d, keepdim=k)),
        row(lambda a: a, A, **_KEEP_NO_AXES),
    ],
    "ReduceMin": _reduce_rows("Min", lambda a, d, k: a.amin(d, keepdim=k)),
    "ReduceProd": [*_reduce_rows("Prod", _prod), *_reduce_rows("Prod", _prod, with_zeros())],
    "ReduceSum": [
        *_reduce_rows("Sum", lambda a, d, k: a.sum(d, keepdim=k)),
        row(lambda a: a, A, i(), **_KEEP_NO_AXES),
    ],
    "ReduceSumSquare": _reduce_rows("SumSquare", lambda a, d, k: (a**2).sum(d, keepdim=k)),
    "TopK": [
        row(lambda a: a.topk(2, -1).values, A, i(2), outputs=2),
        row(lambda a: a.topk(2, 1, largest=False).values, A, i(2), axis=1, largest=0, outputs=2),
    ],
}
