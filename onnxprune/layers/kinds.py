"""Kinds: what differs between Conv, ConvTranspose, Gemm and MatMul. Only here do they have names.

`KINDS` is the table. Layouts are those of the package's docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.im2col import Window, channels_first, patches, picked
from onnxprune.rows import Rows

if TYPE_CHECKING:
    from onnxprune.layers.layer import Layer, Use

Array = npt.NDArray[Any]

QUANTISED = "already quantised"


@dataclass(frozen=True)
class Kind:
    """How one op is read as s = W ā."""

    weight: Callable[[ir.Node], ir.Value | str | None]
    input: Callable[[ir.Node], int]
    dimensions: Callable[[ir.Node, ir.Value], tuple[int, int, int]]
    matrix: Callable[[Layer, Array], Array]
    tensor: Callable[[Layer, Array], Array]
    features: Callable[[Layer, Emitter, ir.Value, Rows | None], ir.Value]
    responses: Callable[[Layer, Emitter, ir.Value], ir.Value]
    positions: Callable[[Use], int | None]


def array_of(value: ir.Value) -> Array:
    """The array of an initializer."""
    assert value.const_value is not None
    return value.const_value.numpy()


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """Sizes of an initializer, whose data are not read."""
    assert value.const_value is not None
    return tuple(value.const_value.shape.numpy())


def dtype_of(value: ir.Value) -> np.dtype[Any]:
    """Of an initializer, whose data are not read."""
    assert value.const_value is not None
    return value.const_value.dtype.numpy()


def number_of(node: ir.Node, name: str, default: float = 1.0) -> float:
    """A float attribute of `node`."""
    return float(node.attributes.get_float(name, default) or 0.0)


def is_constant(value: ir.Value | None) -> bool:
    """Whether it is an initializer that no caller may override."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def _constant_weight(node: ir.Node, index: int) -> ir.Value | str | None:
    """Input `index` if it is a float initializer, the reason if it is a weight we leave alone, else None."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if is_constant(value) and value is not None:
        return value if value.dtype in _FLOATS else f"weight {value.name} has type {value.dtype}"
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type in ("DequantizeLinear", "DequantizeBFP"):
        return QUANTISED
    return None


def _conv_weight(node: ir.Node) -> ir.Value | str | None:
    weight = _constant_weight(node, 1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if isinstance(weight, ir.Value) and bias is not None and not is_constant(bias):
        return "its bias is computed at run time"
    return weight if weight is not None else "its weight is computed at run time"


def _gemm_weight(node: ir.Node) -> ir.Value | str | None:
    weight = _constant_weight(node, 1)
    if not isinstance(weight, ir.Value):
        return weight
    if node.attributes.get_int("transA", 0):
        return "Gemm with transA: rows are not samples"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if number_of(node, "alpha") == 0 or (bias is not None and number_of(node, "beta") == 0):
        return "Gemm that multiplies its weight or bias by zero"
    if bias is not None:
        columns = _gemm_shape(node, weight)[0]
        if (
            not is_constant(bias)
            or prod(shape_of(bias)) != columns
            or shape_of(bias)[-1:] not in ((), (columns,))
        ):
            return "its bias is no constant vector over the output units"
    return weight


def _matmul_weight(node: ir.Node) -> ir.Value | str | None:
    for index in (1, 0):
        weight = _constant_weight(node, index)
        if isinstance(weight, str):
            return weight
        if weight is not None:
            rank = len(weight.shape.numpy() if weight.shape is not None else ())
            return weight if rank == 2 else f"weight {weight.name} has rank {rank}; only matrices are pruned"
    return None


def _conv_dimensions(node: ir.Node, weight: ir.Value) -> tuple[int, int, int]:
    groups = node.attributes.get_int("group", 1) or 1
    out, into, *kernel = shape_of(weight)
    return groups, out // groups, into * prod(kernel)


def _transposed_dimensions(node: ir.Node, weight: ir.Value) -> tuple[int, int, int]:
    groups = node.attributes.get_int("group", 1) or 1
    into, out, *kernel = shape_of(weight)
    return groups, out, into // groups * prod(kernel)


def _gemm_shape(node: ir.Node, weight: ir.Value) -> tuple[int, int]:
    rows, columns = shape_of(weight)
    return (rows, columns) if node.attributes.get_int("transB", 0) else (columns, rows)


def _matmul_input(node: ir.Node) -> int:
    return 0 if is_constant(node.inputs[1]) else 1


def _matmul_dimensions(node: ir.Node, weight: ir.Value) -> tuple[int, int, int]:
    rows, columns = shape_of(weight)
    return (1, columns, rows) if _matmul_input(node) == 0 else (1, rows, columns)


def _transposed_matrix(layer: Layer, weight: Array) -> Array:
    into, out, *kernel = weight.shape
    grouped = weight.reshape(layer.groups, into // layer.groups, out, prod(kernel))
    return grouped.transpose(0, 2, 1, 3).reshape(layer.groups, layer.d_out, layer.d_in)


def _transposed_tensor(layer: Layer, matrix: Array) -> Array:
    into, out, *kernel = shape_of(layer.weight)
    grouped = matrix.reshape(layer.groups, out, into // layer.groups, prod(kernel))
    return np.ascontiguousarray(grouped.transpose(0, 2, 1, 3)).reshape(into, out, *kernel)


def _gemm_matrix(layer: Layer, weight: Array) -> Array:
    node = layer.uses[0].node
    upright, alpha = weight if node.attributes.get_int("transB", 0) else weight.T, number_of(node, "alpha")
    return upright[None] if alpha == 1 else alpha * upright[None]


def _gemm_tensor(layer: Layer, matrix: Array) -> Array:
    node = layer.uses[0].node
    alpha = number_of(node, "alpha")
    upright = matrix[0] if alpha == 1 else matrix[0] / alpha
    return np.ascontiguousarray(upright if node.attributes.get_int("transB", 0) else upright.T)


def _matmul_matrix(layer: Layer, weight: Array) -> Array:
    return (weight.T if _matmul_input(layer.uses[0].node) == 0 else weight)[None]


def _matmul_tensor(layer: Layer, matrix: Array) -> Array:
    return np.ascontiguousarray(matrix[0].T if _matmul_input(layer.uses[0].node) == 0 else matrix[0])


def window_of(layer: Layer) -> Window:
    """How a convolution reads its input."""
    kernel = shape_of(layer.weight)[2:]
    return Window(layer.uses[0].node, kernel, layer.groups * layer.d_in // prod(kernel), layer.groups)


def patches_of(layer: Layer, op: Emitter, value: ir.Value, rows: Rows | None) -> ir.Value:
    """Its im2col patches, [groups, d_in, rows]."""
    return patches(op, value, window_of(layer), dtype_of(layer.weight), rows)


def _channels_last(op: Emitter, value: ir.Value, width: int) -> ir.Value:
    rows = op.Reshape(value, op.ints(-1, width))
    result: ir.Value = op.Unsqueeze(op.Transpose(rows, perm=[1, 0]), op.ints(0))
    return result


def _matmul_side(op: Emitter, value: ir.Value, node: ir.Node, width: int) -> ir.Value:
    if _matmul_input(node) == 0:
        return _channels_last(op, value, width)
    if value.shape is not None and len(value.shape) == 2:
        columns: ir.Value = op.Unsqueeze(value, op.ints(0))
        return columns
    shape = op.Concat(op.ints(-1, width), op.Shape(value, start=-1), axis=0)
    return channels_first(op, op.Reshape(value, shape), 1, width)


def _spatial_positions(use: Use) -> int | None:
    return _static(use.output, slice(2, None))


def _row_positions(use: Use) -> int | None:
    return _static(use.output, slice(1, -1))


def _matmul_positions(use: Use) -> int | None:
    """Behind a left weight, positions are columns: the last axis and those between batch and features."""
    if _matmul_input(use.node) == 0:
        return _row_positions(use)
    between, columns = _static(use.output, slice(1, -2)), _static(use.output, slice(-1, None))
    return None if between is None or columns is None else between * columns


def _static(value: ir.Value, axes: slice) -> int | None:
    sizes = list(value.shape)[axes] if value.shape is not None else [None]
    known = [size for size in sizes if isinstance(size, int)]
    return prod(known) if len(known) == len(sizes) else None


#: The linear ops.
KINDS: dict[str, Kind] = {
    "Conv": Kind(
        weight=_conv_weight,
        input=lambda node: 0,
        dimensions=_conv_dimensions,
        matrix=lambda layer, weight: weight.reshape(layer.groups, layer.d_out, layer.d_in),
        tensor=lambda layer, matrix: matrix.reshape(shape_of(layer.weight)),
        features=patches_of,
        responses=lambda layer, op, value: channels_first(op, value, layer.groups, layer.d_out),
        positions=_spatial_positions,
    ),
    "ConvTranspose": Kind(
        weight=_conv_weight,
        input=lambda node: 0,
        dimensions=_transposed_dimensions,
        matrix=_transposed_matrix,
        tensor=_transposed_tensor,
        features=patches_of,
        responses=lambda layer, op, value: channels_first(op, value, layer.groups, layer.d_out),
        positions=_spatial_positions,
    ),
    "Gemm": Kind(
        weight=_gemm_weight,
        input=lambda node: 0,
        dimensions=lambda node, weight: (1, *_gemm_shape(node, weight)),
        matrix=_gemm_matrix,
        tensor=_gemm_tensor,
        features=lambda layer, op, value, rows: picked(op, _channels_last(op, value, layer.d_in), rows),
        responses=lambda layer, op, value: _channels_last(op, value, layer.d_out),
        positions=_row_positions,
    ),
    "MatMul": Kind(
        weight=_matmul_weight,
        input=_matmul_input,
        dimensions=_matmul_dimensions,
        matrix=_matmul_matrix,
        tensor=_matmul_tensor,
        features=lambda layer, op, value, rows: picked(
            op, _matmul_side(op, value, layer.uses[0].node, layer.d_in), rows
        ),
        responses=lambda layer, op, value: _matmul_side(op, value, layer.uses[0].node, layer.d_out),
        positions=_matmul_positions,
    ),
}
