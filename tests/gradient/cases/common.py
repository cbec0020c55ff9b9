"""A row is one variant of an op: its inputs and attributes, and the same function in torch as the oracle.

Float arrays are differentiated by; integer and boolean arrays, and `Fixed` ones, are constants of the graph.
Float attributes are exact in float32, which is how ONNX stores them. A row without a torch function is
checked against finite differences alone, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fixed:
    """A float input that is a constant of the graph."""

    array: Array


@dataclass(frozen=True)
class Case:
    inputs: Sequence[Array | Fixed | None]
    torch: Callable[..., Any] | None
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    single: bool = False  # the op itself exists in float32 only


def x(*shape: int, low: float | None = None, high: float = 1.0) -> Array:
    """Standard normal, or uniform in [low, high]; the same for the same shape."""
    rng = np.random.default_rng(sum(d * 31**i for i, d in enumerate(shape)) + 7)
    return rng.normal(size=shape) if low is None else rng.uniform(low, high, size=shape)


def distinct(*shape: int) -> Array:
    """No two entries nearer than 0.01, so that no maximum is near a tie."""
    return np.random.default_rng(3).permutation(int(np.prod(shape))).reshape(shape) * 0.01 - 0.3


def i(*entries: int) -> Array:
    return np.array(entries, dtype=np.int64)


def row(
    op: Callable[..., Any] | None,
    *inputs: Array | Fixed | None,
    opset: int = 18,
    outputs: int = 1,
    single: bool = False,
    **attributes: Any,
) -> Case:
    return Case(inputs, op, attributes, opset, outputs, single)


A, B = x(2, 3, 4), x(3, 1)
POSITIVE, UNIT = x(2, 3, low=0.5, high=2.0), x(2, 3, low=-0.9, high=0.9)
IMAGE, LINE, CUBE = x(2, 4, 7, 6), x(2, 4, 9), x(1, 2, 5, 4, 5)


def same(
    f: Callable[..., Any], stride: int, extent: int, first: bool, value: float = 0.0
) -> Callable[..., Any]:
    """`f` after padding as auto_pad does."""

    def padded(image: torch.Tensor, *rest: Any) -> Any:
        pads: list[int] = []
        for size in reversed(image.shape[2:]):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            pads += [total - total // 2, total // 2] if first else [total // 2, total - total // 2]
        return f(F.pad(image, pads, value=value), *rest)

    return padded


def with_zeros() -> Array:
    data = A.copy()
    data[0, 0, 0] = data[1, 0, 1] = data[1, 1, 1] = 0.0
    return data
