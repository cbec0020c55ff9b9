"""Ops that draw, from torch's own generators: `torch.manual_seed` fixes them, seed attributes do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.finetune.ops.common import Function


def _normal(
    *,
    shape: Sequence[int],
    like: Tensor,
    mean: float = 0.0,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
    seed: float | None = None,
) -> Tensor:
    return mean + scale * torch.randn(tuple(shape), dtype=dtype or like.dtype, device=like.device)


def _uniform(
    *,
    shape: Sequence[int],
    like: Tensor,
    low: float = 0.0,
    high: float = 1.0,
    dtype: torch.dtype | None = None,
    seed: float | None = None,
) -> Tensor:
    return low + (high - low) * torch.rand(tuple(shape), dtype=dtype or like.dtype, device=like.device)


def _normal_like(
    x: Tensor,
    *,
    mean: float = 0.0,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
    seed: float | None = None,
) -> Tensor:
    return _normal(shape=x.shape, like=x, mean=mean, scale=scale, dtype=dtype)


def _uniform_like(
    x: Tensor,
    *,
    low: float = 0.0,
    high: float = 1.0,
    dtype: torch.dtype | None = None,
    seed: float | None = None,
) -> Tensor:
    return _uniform(shape=x.shape, like=x, low=low, high=high, dtype=dtype)


def _bernoulli(x: Tensor, *, dtype: torch.dtype | None = None, seed: float | None = None) -> Tensor:
    return torch.bernoulli(x).to(dtype or x.dtype)


def _multinomial(
    x: Tensor, *, sample_size: int = 1, dtype: torch.dtype | None = torch.int32, seed: float | None = None
) -> Tensor:
    return torch.multinomial(torch.softmax(x, -1), sample_size, replacement=True).to(dtype or x.dtype)


RANDOM: dict[str, Function] = {
    "Bernoulli": _bernoulli,
    "Multinomial": _multinomial,
    "RandomNormal": _normal,
    "RandomNormalLike": _normal_like,
    "RandomUniform": _uniform,
    "RandomUniformLike": _uniform_like,
}
