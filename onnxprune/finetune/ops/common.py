"""What every function shares: the types of the table, and integers that are known early or late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

#: A tensor, or the numbers themselves where the graph has them as a constant.
Integers = Sequence[int] | Tensor
Number = float | Tensor
Function = Callable[..., Any]


def integers(value: Integers) -> list[int]:
    """The entries of a vector of integers, wherever they are."""
    entries = value.reshape(-1).tolist() if isinstance(value, Tensor) else value
    return [int(entry) for entry in entries]


def integer(value: Integers) -> int:
    """The only entry of `value`."""
    (entry,) = integers(value)
    return entry


def from_front(index: Tensor, size: int) -> Tensor:
    """Indices of any sign as int64 from 0 on."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


def per_channel(vector: Tensor, x: Tensor) -> Tensor:
    """[C] as [C, 1, …], which broadcasts over the spatial axes of `x`."""
    return vector.reshape(-1, *[1] * (x.dim() - 2))
