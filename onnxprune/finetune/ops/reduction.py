"""Reductions over axes, and running sums; axes come as an input (opset 18), perhaps at run time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.finetune.ops.common import Function, Integers, integer, integers

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    total = x.sum(axes, keepdim=keep)
    return torch.div(total, x.numel() // max(total.numel(), 1), rounding_mode="trunc")


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


REDUCE: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _prod,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep),
}


def _reduce(name: str, over: Reduction) -> Function:
    def reduction(
        x: Tensor, axes: Integers | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        along = integers(axes) if axes is not None else []
        if not along and noop_with_empty_axes:
            return over(x.unsqueeze(-1), [-1], False).to(x.dtype)  # over one element each
        return over(x, along or list(range(x.dim())), bool(keepdims)).to(x.dtype)

    reduction.__name__ = name  # by it the generated code calls it
    return reduction


def _cumsum(x: Tensor, axis: Integers, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    along = integer(axis)
    walked = x.flip(along) if reverse else x
    total = walked.cumsum(along).to(x.dtype)
    if exclusive:
        total = torch.cat(
            [torch.zeros_like(total.narrow(along, 0, 1)), total.narrow(along, 0, x.shape[along] - 1)], along
        )
    return total.flip(along) if reverse else total


REDUCTION: dict[str, Function] = {
    **{name: _reduce(name, over) for name, over in REDUCE.items()},
    "CumSum": _cumsum,
}
