"""Normalisations and softmaxes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .common import (
    IMAGE,
    LINE,
    A,
    Case,
    row,
    x,
)


def _batch_norm(a: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    s, b, m, v = (vector.reshape(-1, *[1] * (a.ndim - 2)) for vector in (scale, bias, mean, variance))
    return (a - m) / torch.sqrt(v + 2**-10) * s + b


NORMALISATION: dict[str, list[Case]] = {
    "BatchNormalization": [
        row(_batch_norm, IMAGE, x(4), x(4), x(4), x(4, low=0.5), epsilon=2**-10),
        row(_batch_norm, x(5, 4), x(4), x(4), x(4), x(4, low=0.5), epsilon=2**-10),
    ],
    "GroupNormalization": [
        row(lambda a, s, b: F.group_norm(a, 2, s, b), IMAGE, x(4), x(4), num_groups=2, opset=21)
    ],
    "InstanceNormalization": [
        row(lambda a, s, b: F.instance_norm(a, weight=s, bias=b), d, x(4), x(4)) for d in (IMAGE, LINE)
    ],
    "LayerNormalization": [
        row(lambda a, s, b: F.layer_norm(a, (4,), s, b), A, x(4), x(4)),
        row(lambda a, s: F.layer_norm(a, (3, 4), s), A, x(3, 4), axis=1),
        row(
            lambda a, s, b: F.layer_norm(a, (3, 4), s, b, 0.125), A, x(3, 4), x(3, 4), axis=-2, epsilon=0.125
        ),
    ],
    "LogSoftmax": [row(lambda a: a.log_softmax(-1), A), row(lambda a: a.log_softmax(1), A, axis=1)],
    "LpNormalization": [
        row(lambda a: F.normalize(a, dim=-1), A),
        row(lambda a: F.normalize(a, p=1, dim=1), A, p=1, axis=1),
    ],
    "MeanVarianceNormalization": [
        row(lambda a: F.instance_norm(a, eps=0.0), IMAGE, axes=[2, 3], single=True)
    ],
    "RMSNormalization": [row(lambda a, s: F.rms_norm(a, (4,), s, 1e-5), A, x(4), opset=23)],
    "Softmax": [row(lambda a: a.softmax(-1), A), row(lambda a: a.softmax(1), A, axis=1)],
}
