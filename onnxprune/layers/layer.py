"""A layer: one set of weights, where it is used, and how to read and write it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.im2col import Window, picked
from onnxprune.layers.kinds import (
    KINDS,
    Kind,
    array_of,
    dtype_of,
    number_of,
    patches_of,
    shape_of,
    window_of,
)
from onnxprune.rows import Rows

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Use:
    """One node that applies a layer's weight: `output` is s, behind the bias where a separate Add adds it."""

    node: ir.Node
    input: ir.Value
    output: ir.Value

    @property
    def positions(self) -> int | None:
        """Positions per sample, T, from the inferred shapes; None where they are symbolic."""
        return KINDS[self.node.op_type].positions(self)


@dataclass(frozen=True, eq=False)
class Layer:
    """One set of weights, its bias and the nodes that use it. `name` is the first node's name.

    `weight` and `bias` are initializers of the graph; `write` changes them there.
    """

    name: str
    weight: ir.Value
    bias: ir.Value | None
    uses: tuple[Use, ...]
    groups: int
    d_out: int
    d_in: int

    @property
    def op(self) -> str:
        """Op type of the linear node, for people to read."""
        return self.uses[0].node.op_type

    @property
    def size(self) -> int:
        """Number of weights, the bias not counted."""
        return self.groups * self.d_out * self.d_in

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the initializer."""
        return shape_of(self.weight)

    @property
    def kernel(self) -> int:
        """Kernel positions a channel: 1 but for convolutions."""
        return prod(shape_of(self.weight)[2:])

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates for one sample; None where positions are symbolic."""
        positions = [use.positions for use in self.uses]
        known = [count for count in positions if count is not None]
        return self.size * sum(known) if len(known) == len(positions) else None

    def matches(self, pattern: str) -> bool:
        """Whether the layer or its weight is named like the shell pattern."""
        return any(fnmatchcase(name, pattern) for name in (self.name, self.weight.name or ""))

    @property
    def _kind(self) -> Kind:
        return KINDS[self.op]

    def matrix(self, weight: Array) -> Array:
        """The initializer's array as [groups, d_out, d_in], Gemm's alpha multiplied in."""
        return self._kind.matrix(self, weight)

    def tensor(self, matrix: Array) -> Array:
        """Inverse of `matrix`: back to the initializer's layout (dtype unchanged)."""
        return self._kind.tensor(self, matrix)

    @property
    def window(self) -> Window | None:
        """How a convolution reads its input; None for what is none."""
        return window_of(self) if self._kind.features is patches_of else None

    def features(self, op: Emitter, value: ir.Value, rows: Rows | None = None) -> ir.Value:
        """Emit a: the wanted rows (all if None) of the layer's input `value`, as [groups, d_in, rows]."""
        folded: ir.Value = self._kind.features(self, op, value, rows)
        return folded

    def responses(self, op: Emitter, value: ir.Value, rows: Rows | None = None) -> ir.Value:
        """Emit s, or a gradient of its shape, likewise as [groups, d_out, rows]."""
        return picked(op, self._kind.responses(self, op, value), rows)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What weights lose nothing in: float32, or float64 where they are that."""
        double = dtype_of(self.weight) == np.float64
        return np.dtype(np.float64 if double else np.float32)

    def read(self, dtype: npt.DTypeLike = np.float64) -> tuple[Array, Array | None]:
        """Current weights, a matrix of `dtype`, and the bias, float64 [groups, d_out] (None without one)."""
        matrix = self.matrix(array_of(self.weight).astype(dtype))
        if self.bias is None:
            return matrix, None
        beta = number_of(self.uses[0].node, "beta")
        bias = array_of(self.bias).astype(np.float64)
        return matrix, beta * bias.reshape(self.groups, self.d_out)

    def write(self, matrix: Array, bias: Array | None) -> None:
        """Inverse of `read`: put weights and bias back, in the initializers' own layout and dtype."""
        _replace(self.weight, self.tensor(matrix))
        if self.bias is not None and bias is not None:
            _replace(self.bias, bias.reshape(shape_of(self.bias)) / number_of(self.uses[0].node, "beta"))


def _replace(value: ir.Value, array: Array) -> None:
    dtype = dtype_of(value)
    value.const_value = ir.tensor(np.asarray(array, dtype=dtype, order="C"), name=value.name)
