"""Functions of one element, and the broadcasting ops of two or more operands.

Where a function has a kink, the gradient there is torch's, and so is that of `onnxprune.gradient`.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.finetune.ops.common import Function, Number


def _cast(
    x: Tensor, *, like: Tensor, dtype: torch.dtype | None, saturate: int = 1, round_mode: str = "up"
) -> Tensor:
    return x.to(dtype or like.dtype)


def _cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


def _celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


def _clip(x: Tensor, low: Number | None = None, high: Number | None = None) -> Tensor:
    if low is None and high is None:
        return x
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = (b if b is None or isinstance(b, Tensor) else x.new_tensor(b) for b in (low, high))
    return torch.clamp(x, low, high)  # type: ignore[arg-type]  # both are numbers, or both are tensors


def _dropout(
    x: Tensor, ratio: Number = 0.5, training: Tensor | None = None, *, seed: int | None = None, outputs: int
) -> list[Tensor]:
    """As an exported network has it: off."""
    return [x, torch.ones_like(x, dtype=torch.bool)][:outputs]


def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _identity(x: Tensor) -> Tensor:
    return x


def _is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    none = torch.zeros_like(x, dtype=torch.bool)
    return (torch.isposinf(x) if detect_positive else none) | (torch.isneginf(x) if detect_negative else none)


def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def _selu(
    x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Tensor:
    # the branch not taken must not overflow, or its gradient is 0·∞
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    return torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, torch.zeros_like(x)))


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, x.new_zeros(()))  # torch's own softplus is the identity from 20 on


def _swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _div(a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def _mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def _pow(x: Tensor, exponent: Number) -> Tensor:
    return torch.pow(x, exponent).to(x.dtype)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def _stacked(operands: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*operands))  # type: ignore[no-untyped-call]  # torch has no types


def _max(*operands: Tensor) -> Tensor:
    """Operands that tie share the gradient equally."""
    return torch.maximum(*operands) if len(operands) == 2 else _stacked(operands).amax(0)


def _min(*operands: Tensor) -> Tensor:
    return torch.minimum(*operands) if len(operands) == 2 else _stacked(operands).amin(0)


def _sum(*operands: Tensor) -> Tensor:
    return reduce(torch.add, operands)


def _mean(*operands: Tensor) -> Tensor:
    return _sum(*operands) / len(operands)


def _bit_shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    return x << by if direction == "LEFT" else x >> by


def _hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


ELEMENTWISE: dict[str, Function] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitShift": _bit_shift,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": torch.ceil,
    "Celu": _celu,
    "Clip": _clip,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Gelu": _gelu,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": F.hardswish,
    "Hardmax": _hardmax,
    "Identity": _identity,
    "IsInf": _is_inf,
    "IsNaN": torch.isnan,
    "LeakyRelu": _leaky_relu,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Max": _max,
    "Mean": _mean,
    "Min": _min,
    "Mish": F.mish,
    "Mod": _mod,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": _softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": _sum,
    "Swish": _swish,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "ThresholdedRelu": _thresholded_relu,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}
