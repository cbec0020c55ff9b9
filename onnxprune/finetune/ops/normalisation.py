"""Normalisations as they run at inference, and the softmaxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.finetune.ops.common import Function, per_channel


def _batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor:
    slope = scale * torch.rsqrt(variance + epsilon)
    return (x - per_channel(mean, x)) * per_channel(slope, x) + per_channel(bias, x)


def _layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int,
) -> list[Tensor]:
    shape = x.shape[axis:] if axis < 0 else x.shape[axis % x.dim() :]
    normal = F.layer_norm(x, shape, None, None, epsilon) * scale
    results = [normal if bias is None else normal + bias]
    if outputs > 1:
        axes = list(range(x.dim() - len(shape), x.dim()))
        results.append(x.mean(axes, keepdim=True))
        results.append(torch.rsqrt(x.var(axes, correction=0, keepdim=True) + epsilon))
    return results[:outputs]


def _rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    axes = list(range(axis % x.dim(), x.dim()))
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + epsilon) * scale


def _group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """A scale for each channel, or (opset 18) for each group."""
    each = x.shape[1] // scale.numel()
    if each > 1:
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


def _instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return torch.group_norm(x, x.shape[1], scale, bias, epsilon)


def _lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Zero where the norm is, with a gradient of zero."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    zero = norm == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, norm))


def _mean_variance_normalization(x: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    variance, mean = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


NORMALISATION: dict[str, Function] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "RMSNormalization": _rms_normalization,
    "Softmax": _softmax,
}
