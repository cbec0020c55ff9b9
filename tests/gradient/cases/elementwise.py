"""Functions of one element, and operands broadcast over each other."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .common import (
    POSITIVE,
    UNIT,
    A,
    B,
    Case,
    Fixed,
    row,
    with_zeros,
    x,
)


def _selu(a: torch.Tensor) -> torch.Tensor:
    """Torch has more digits of the two constants than ONNX, which has them in float32."""
    alpha, gamma = 1.67326319217681884765625, 1.05070102214813232421875
    return gamma * torch.where(a > 0, a, alpha * torch.expm1(a))


ELEMENTWISE: dict[str, list[Case]] = {
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
    "Gelu": [
        row(F.gelu, A, opset=20),
        row(lambda a: F.gelu(a, approximate="tanh"), A, opset=20, approximate="tanh"),
    ],
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
    "Shrink": [
        row(lambda a: F.hardshrink(a, 0.5), A),
        row(lambda a: F.softshrink(a, 0.25), A, lambd=0.25, bias=0.25),
    ],
    "Sigmoid": [row(torch.sigmoid, A)],
    "Sin": [row(torch.sin, A)],
    "Sinh": [row(torch.sinh, A)],
    "Softplus": [row(F.softplus, A)],
    "Softsign": [row(F.softsign, A)],
    "Sqrt": [row(torch.sqrt, POSITIVE)],
    "Swish": [row(F.silu, A, opset=24), row(lambda a: a * torch.sigmoid(1.75 * a), A, opset=24, alpha=1.75)],
    "Tan": [row(torch.tan, UNIT)],
    "Tanh": [row(torch.tanh, A)],
    "ThresholdedRelu": [
        row(lambda a: F.threshold(a, 1.0, 0.0), A),
        row(lambda a: F.threshold(a, 0.2, 0.0), A, alpha=0.2),
    ],
    "Add": [
        row(torch.add, A, B),
        row(torch.add, A, A + 1),
        row(torch.add, x(4), A),
        row(torch.add, np.float64(2), A),
    ],
    "Div": [row(torch.div, A, x(3, 1, low=0.5)), row(torch.div, x(4), x(2, 3, 4, low=0.5))],
    "Max": [
        row(torch.maximum, A, x(3, 4)),
        row(lambda a, b, c: torch.maximum(torch.maximum(a, b), c), A, x(3, 4), x(1)),
        row(torch.maximum, np.ones((2, 2)), np.array([[1.0, 0.0], [1.0, 2.0]])),
        row(
            lambda a, b, c: torch.stack([a, b, c]).amax(0), np.ones(3), np.ones(3), np.array([1.0, 0.0, 2.0])
        ),
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
        row(
            lambda a: torch.pow(a, torch.tensor([0.0, 1.0, 2.0])),
            with_zeros()[:, :, :3],
            Fixed(np.float64([0, 1, 2])),
        ),
    ],
    "Sub": [row(torch.sub, A, B), row(torch.sub, x(4), A)],
    "Sum": [row(lambda a, b, c: a + b + c, A, B, x(4)), row(lambda a: a, A)],
    "Where": [
        row(
            lambda a, b: torch.where(torch.tensor([[True], [False], [True]]), a, b),
            np.array([[True], [False], [True]]),
            x(4),
            A,
        )
    ],
}
