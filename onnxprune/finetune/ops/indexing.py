"""Ops whose indices are data: gathering, scattering, sorting, counting; negative ones count from the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.finetune.ops.common import Function, Integers, from_front, integer

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.dim()
    index = from_front(indices, x.shape[axis])
    taken = x.index_select(axis, index.reshape(-1))
    return taken.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, from_front(indices, x.shape[axis]))


def _gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    rest = [1] * (indices.dim() - 1 - batch_dims)
    batch = [
        torch.arange(x.shape[axis], device=x.device).reshape(-1, *[1] * (batch_dims - axis - 1), *rest)
        for axis in range(batch_dims)
    ]
    return x[(*batch, *indices.long().unbind(-1))]


def _scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    index = from_front(indices, x.shape[axis])
    updates = updates.to(x.dtype)  # autocast makes them differ
    if reduction == "none":
        return x.scatter(axis, index, updates)
    if reduction == "add":
        return x.scatter_add(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction])


def _scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    places = indices.long().unbind(-1)
    updates = updates.to(x.dtype)
    if reduction in ("none", "add"):
        return x.index_put(places, updates, accumulate=reduction == "add")
    depth = len(places)
    flat = torch.zeros_like(places[0])
    for axis, place in enumerate(places):
        flat = flat * x.shape[axis] + from_front(place, x.shape[axis])
    rows = x.reshape(-1, *x.shape[depth:])
    values = updates.reshape(-1, *x.shape[depth:])
    index = flat.reshape(-1, *[1] * (rows.dim() - 1)).expand_as(values)
    return rows.scatter_reduce(0, index, values, _REDUCTIONS[reduction]).reshape(x.shape)


def _top_k(
    x: Tensor, k: Integers, *, axis: int = -1, largest: int = 1, sorted: int = 1, outputs: int
) -> list[Tensor]:
    """Of equals the one with the lower index comes first, which `torch.topk` does not promise."""
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    count = integer(k)
    return [part.narrow(axis, 0, count) for part in (values, indices)][:outputs]


def _arg(find: Callable[..., Tensor]) -> Function:
    """Of equals the first, or the last."""

    def place(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=bool(keepdims))
        return find(x, axis, keepdim=bool(keepdims))

    return place


def _non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x).T


def _one_hot(indices: Tensor, depth: Integers, values: Tensor, *, axis: int = -1) -> Tensor:
    """Indices out of range are off everywhere."""
    size = integer(depth)
    off, on = values.unbind()
    place = axis if axis >= 0 else axis + indices.dim() + 1
    classes = torch.arange(size, device=indices.device).reshape(-1, *[1] * (indices.dim() - place))
    return torch.where(from_front(indices, size).unsqueeze(place) == classes, on, off)


INDEXING: dict[str, Function] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}
