"""Linear: Conv, ConvTranspose, Gemm and MatMul (+ Add) as one thing whose channels can be scaled and shifted.

Weights are seen as [groups, a, b, rest]: a and b are (out, in) for Conv and Gemm with transB, (in, out) for
ConvTranspose, Gemm and MatMul. Arithmetic is float64; results are cast back to the weight's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Vector = npt.NDArray[np.float64]  # [channels]
FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass
class Linear:
    """One linear node with constant weights, and the Add that holds a MatMul's bias, if any."""

    node: ir.Node
    weight: ir.Value
    add: ir.Node | None = None

    @property
    def output(self) -> ir.Value:
        """What the layer yields, bias included."""
        return (self.add or self.node).outputs[0]

    @property
    def rank(self) -> int | None:
        """Rank of the layer's input and output, None where the graph does not tell."""
        if self.node.op_type == "MatMul":
            shape = self.node.outputs[0].shape
            return None if shape is None else shape.rank()
        return 2 if self.node.op_type == "Gemm" else self._array.ndim

    @property
    def axis(self) -> int | None:
        """The channel axis of input and output."""
        return self.rank - 1 if self.node.op_type == "MatMul" and self.rank is not None else 1

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self._groups * self._view.shape[self._out_axis])

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self._groups * self._view.shape[3 - self._out_axis])

    @property
    def pads(self) -> bool:
        """Whether border outputs see fewer inputs, so that a shifted input is not a shifted bias."""
        if self.node.op_type == "ConvTranspose":
            return True
        attributes = self.node.attributes
        automatic = attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return automatic or any(attributes.get_ints("pads", ()))

    def bias(self) -> Vector | None:
        """The bias in effect, [outputs]; zeros where absent; None where it is no constant vector."""
        value = self._bias_value
        if value is None:
            return np.zeros(self.outputs)
        if not value.is_initializer() or value.const_value is None or self.rank is None or self.axis is None:
            return None
        constant = value.const_value.numpy().astype(np.float64)
        if self.node.op_type in ("Conv", "ConvTranspose"):
            return constant
        beta = self.node.attributes.get_float("beta", 1.0)
        vector = channel_vector(constant, self.axis, self.rank, self.outputs)
        return None if vector is None else beta * vector

    def output_scaled(self, scale: Vector) -> npt.NDArray[Any]:
        """The weight whose output channels are multiplied by `scale` [outputs]."""
        return self._scaled(scale, self._out_axis)

    def input_scaled(self, scale: Vector) -> npt.NDArray[Any]:
        """The weight that sees inputs already multiplied by `scale` [inputs]."""
        return self._scaled(scale, 3 - self._out_axis)

    def response(self, shift: Vector) -> Vector:
        """What a constant input `shift` [inputs] adds to an output, [outputs]; exact without padding."""
        summed = self._view.astype(np.float64).sum(axis=3)
        subscripts = "gab,gb->ga" if self._out_axis == 1 else "gab,ga->gb"
        alpha = self.node.attributes.get_float("alpha", 1.0)
        answer: Vector = alpha * np.einsum(subscripts, summed, shift.reshape(self._groups, -1)).reshape(-1)
        return answer

    def _scaled(self, scale: Vector, axis: int) -> npt.NDArray[Any]:
        sizes = [self._groups, 1, 1, 1]
        sizes[axis] = -1
        with np.errstate(over="ignore"):  # an overflow to Inf is found and noted by the caller
            scaled = (self._view.astype(np.float64) * scale.reshape(sizes)).astype(self._array.dtype)
        return scaled.reshape(self._array.shape)

    @property
    def _array(self) -> npt.NDArray[Any]:
        assert self.weight.const_value is not None  # find_linear saw to it
        return self.weight.const_value.numpy()

    @property
    def _groups(self) -> int:
        return int(self.node.attributes.get_int("group", 1))

    @property
    def _view(self) -> npt.NDArray[Any]:
        first, second = self._array.shape[:2]
        return self._array.reshape(self._groups, first // self._groups, second, -1)

    @property
    def _out_axis(self) -> int:
        rows = self.node.op_type == "Conv" or bool(self.node.attributes.get_int("transB", 0))
        return 1 if rows else 2

    @property
    def _bias_value(self) -> ir.Value | None:
        if self.add is not None:
            return next(value for value in self.add.inputs if value is not self.node.outputs[0])
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None


def find_linear(node: ir.Node | None) -> Linear | None:
    """`node` as a Linear: one of the four ops with constant weights, or the Add of a MatMul's bias."""
    if node is None or node.domain:
        return None
    if node.op_type == "Add":
        for value in node.inputs:
            product = value.producer() if value is not None else None
            if product is not None and product.op_type == "MatMul" and len(product.outputs[0].uses()) == 1:
                inner = find_linear(product)
                found = Linear(inner.node, inner.weight, node) if inner is not None else None
                return found if found is not None and found.bias() is not None else None
        return None
    weight = node.inputs[1] if node.op_type in _OPS else None
    if weight is None or not weight.is_initializer() or weight.const_value is None:
        return None
    rank = weight.const_value.shape.rank()
    fits = rank == 2 if node.op_type in ("MatMul", "Gemm") else rank >= 2
    return Linear(node, weight) if fits and weight.const_value.dtype in FLOATS else None


def channel_vector(constant: npt.NDArray[Any], axis: int, rank: int, channels: int) -> Vector | None:
    """`constant`, broadcast against rank-`rank` data, as one number a channel; None where it is not that."""
    if constant.ndim > rank:
        return None
    sizes = [1] * (rank - constant.ndim) + list(constant.shape)
    if sizes.pop(axis) not in (1, channels) or any(size != 1 for size in sizes):
        return None
    return np.broadcast_to(constant.reshape(-1).astype(np.float64), (channels,))
