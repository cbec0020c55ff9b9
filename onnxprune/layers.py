"""Layers: every Conv, ConvTranspose, Gemm and MatMul(+Add) seen as `s = W ā`.

This is the only module that asks for the op type of a linear node. Layout convention, for all of them:

    matrix      [groups, d_out, d_in]   W; d_in counts input channels × kernel positions, channels slowest
    bias        [groups, d_out]         the last column of the paper's W, kept apart
    features    [groups, d_in, rows]    a: for a convolution the im2col patches, padding zeros included
    responses   [groups, d_out, rows]   s, or ∂L/∂s

`rows` are samples × positions (see `im2col`).

A weight used by several nodes is one layer with several uses; the uses count as further positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.im2col import Window, channels_first, patches, picked
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
        return _shape(self.weight)

    @property
    def kernel(self) -> int:
        """Kernel positions a channel: 1 but for convolutions."""
        return prod(_shape(self.weight)[2:])

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
    def _kind(self) -> _Kind:
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
        return _window(self) if self._kind.features is _patches else None

    def features(self, op: Emitter, value: ir.Value, rows: Rows | None = None) -> ir.Value:
        """Emit a: the wanted rows (all if None) of the layer's input `value`, as [groups, d_in, rows]."""
        folded: ir.Value = self._kind.features(self, op, value, rows)
        return folded

    def responses(self, op: Emitter, value: ir.Value, rows: Rows | None = None) -> ir.Value:
        """Emit s, or a gradient of its shape, likewise as [groups, d_out, rows]."""
        return picked(op, self._kind.responses(self, op, value), rows)

    def read(self) -> tuple[Array, Array | None]:
        """Current weights as a float64 matrix and the bias as float64 [groups, d_out] (None without one)."""
        matrix = self.matrix(_array(self.weight).astype(np.float64))
        if self.bias is None:
            return matrix, None
        beta = _number(self.uses[0].node, "beta")
        bias = _array(self.bias).astype(np.float64)
        return matrix, beta * bias.reshape(self.groups, self.d_out)

    def write(self, matrix: Array, bias: Array | None) -> None:
        """Inverse of `read`: put weights and bias back, in the initializers' own layout and dtype."""
        _replace(self.weight, self.tensor(matrix))
        if self.bias is not None and bias is not None:
            _replace(self.bias, bias.reshape(_shape(self.bias)) / _number(self.uses[0].node, "beta"))


@dataclass(frozen=True)
class Skipped:
    """Something left alone, and why, in words for the report."""

    name: str
    reason: str


@dataclass
class Layers:
    """The prunable layers of a graph in topological order of first use; what is not one, with the reason."""

    layers: list[Layer] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def find_layers(graph: ir.Graph) -> Layers:
    """Find the layers of a normalised graph (see `model.load`); all else is skipped, with a reason."""
    found = Layers()
    uses: dict[ir.Value, list[tuple[Use, ir.Value | None]]] = {}
    for node in graph:
        reason = LEFT_ALONE.get(node.op_type)
        if reason:
            found.skipped.append(Skipped(node.name or node.op_type, reason))
        elif any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
            found.skipped.append(
                Skipped(node.name or node.op_type, f"weights inside {node.op_type} are left alone")
            )
        elif node.op_type in KINDS and node.domain == "":
            weight = KINDS[node.op_type].weight(node)
            if isinstance(weight, str):
                found.skipped.append(Skipped(node.name or node.op_type, weight))
            elif weight is not None:
                uses.setdefault(weight, []).append(_use(node))
    for weight, entries in uses.items():
        biases = {bias for _, bias in entries}
        layer = _layer(weight, tuple(use for use, _ in entries), biases)
        if isinstance(layer, str):
            found.skipped.append(Skipped(entries[0][0].node.name or weight.name or "", layer))
        else:
            found.layers.append(layer)
    return found


def _layer(weight: ir.Value, uses: tuple[Use, ...], biases: set[ir.Value | None]) -> Layer | str:
    if len({_reading(use.node) for use in uses}) > 1:
        places = f"{len(uses)} places that read it on different axes or with other strides"
        return f"weight {weight.name} is used in {places}"
    foreign = [
        user.name or user.op_type for user, _ in weight.uses() if user not in {use.node for use in uses}
    ]
    if foreign or weight.is_graph_output():
        return f"weight {weight.name} is also read by {', '.join(foreign) or 'a graph output'}"
    if len(biases) > 1:
        return f"weight {weight.name} is shared by nodes with different biases"
    bias = biases.pop()
    if bias is not None and len(list(bias.uses())) > len(uses):
        return f"its bias {bias.name} is shared with other nodes"
    groups, d_out, d_in = KINDS[uses[0].node.op_type].dimensions(uses[0].node, weight)
    return Layer(uses[0].node.name or weight.name or "", weight, bias, uses, groups, d_out, d_in)


def _reading(node: ir.Node) -> tuple[Any, ...]:
    """All that decides what `node` makes of its weight."""
    attributes = sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())
    return node.op_type, KINDS[node.op_type].input(node), *attributes


def _use(node: ir.Node) -> tuple[Use, ir.Value | None]:
    """The use of `node` and its bias: the third input, or the constant of an Add that follows a MatMul."""
    kind = KINDS[node.op_type]
    value, output = node.inputs[kind.input(node)], node.outputs[0]
    assert value is not None  # `weight` has checked the node's inputs
    if node.op_type != "MatMul":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return Use(node, value, output), bias
    width = (node.inputs[1] or value).shape
    users = list(output.uses())
    if (
        len(users) == 1
        and not output.is_graph_output()
        and users[0][0].op_type == "Add"
        and kind.input(node) == 0
    ):
        added, index = users[0]
        other = added.inputs[1 - index]
        exclusive = other is not None and len(list(other.uses())) == 1 and _is_constant(other)
        if exclusive and other is not None and width is not None and other.shape is not None:
            sizes = [int(size) for size in other.shape.numpy()]
            if sizes and sizes[-1] == width[-1] and prod(sizes) == width[-1]:
                return Use(node, value, added.outputs[0]), other
    return Use(node, value, output), None


# -- the kinds: what differs between the four ops ------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    weight: Callable[[ir.Node], ir.Value | str | None]
    input: Callable[[ir.Node], int]
    dimensions: Callable[[ir.Node, ir.Value], tuple[int, int, int]]
    matrix: Callable[[Layer, Array], Array]
    tensor: Callable[[Layer, Array], Array]
    features: Callable[[Layer, Emitter, ir.Value, Rows | None], ir.Value]
    responses: Callable[[Layer, Emitter, ir.Value], ir.Value]
    positions: Callable[[Use], int | None]


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _replace(value: ir.Value, array: Array) -> None:
    dtype = _array(value).dtype
    value.const_value = ir.tensor(np.asarray(array, dtype=dtype, order="C"), name=value.name)


def _number(node: ir.Node, name: str, default: float = 1.0) -> float:
    return float(node.attributes.get_float(name, default) or 0.0)


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and not value.is_graph_input()


_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_GRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
_QUANTISED = "already quantised"
_RECURRENT = "recurrent weights are left alone: no gradient rule reaches inside the cell"
#: Op types whose weights are never pruned, with the reason.
LEFT_ALONE = {
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulNBits", "QGemm"), _QUANTISED
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
}


def _constant_weight(node: ir.Node, index: int) -> ir.Value | str | None:
    """Input `index` if it is a float initializer, the reason if it is a weight we leave alone, else None."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if _is_constant(value) and value is not None:
        return value if value.dtype in _FLOATS else f"weight {value.name} has type {value.dtype}"
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type in ("DequantizeLinear", "DequantizeBFP"):
        return _QUANTISED
    return None


def _conv_weight(node: ir.Node) -> ir.Value | str | None:
    weight = _constant_weight(node, 1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if isinstance(weight, ir.Value) and bias is not None and not _is_constant(bias):
        return "its bias is computed at run time"
    return weight if weight is not None else "its weight is computed at run time"


def _gemm_weight(node: ir.Node) -> ir.Value | str | None:
    weight = _constant_weight(node, 1)
    if not isinstance(weight, ir.Value):
        return weight
    if node.attributes.get_int("transA", 0):
        return "Gemm with transA: rows are not samples"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if _number(node, "alpha") == 0 or (bias is not None and _number(node, "beta") == 0):
        return "Gemm that multiplies its weight or bias by zero"
    if bias is not None:
        columns = _gemm_shape(node, weight)[0]
        if (
            not _is_constant(bias)
            or _array(bias).size != columns
            or _shape(bias)[-1:] not in ((), (columns,))
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


def _shape(value: ir.Value) -> tuple[int, ...]:
    return tuple(_array(value).shape)


def _conv_dimensions(node: ir.Node, weight: ir.Value) -> tuple[int, int, int]:
    groups = node.attributes.get_int("group", 1) or 1
    out, into, *kernel = _shape(weight)
    return groups, out // groups, into * prod(kernel)


def _transposed_dimensions(node: ir.Node, weight: ir.Value) -> tuple[int, int, int]:
    groups = node.attributes.get_int("group", 1) or 1
    into, out, *kernel = _shape(weight)
    return groups, out, into // groups * prod(kernel)


def _gemm_shape(node: ir.Node, weight: ir.Value) -> tuple[int, int]:
    rows, columns = _shape(weight)
    return (rows, columns) if node.attributes.get_int("transB", 0) else (columns, rows)


def _matmul_input(node: ir.Node) -> int:
    return 0 if _is_constant(node.inputs[1]) else 1


def _matmul_dimensions(node: ir.Node, weight: ir.Value) -> tuple[int, int, int]:
    rows, columns = _shape(weight)
    return (1, columns, rows) if _matmul_input(node) == 0 else (1, rows, columns)


def _transposed_matrix(layer: Layer, weight: Array) -> Array:
    into, out, *kernel = weight.shape
    grouped = weight.reshape(layer.groups, into // layer.groups, out, prod(kernel))
    return grouped.transpose(0, 2, 1, 3).reshape(layer.groups, layer.d_out, layer.d_in)


def _transposed_tensor(layer: Layer, matrix: Array) -> Array:
    into, out, *kernel = _shape(layer.weight)
    grouped = matrix.reshape(layer.groups, out, into // layer.groups, prod(kernel))
    return np.ascontiguousarray(grouped.transpose(0, 2, 1, 3)).reshape(into, out, *kernel)


def _gemm_matrix(layer: Layer, weight: Array) -> Array:
    node = layer.uses[0].node
    upright = weight if node.attributes.get_int("transB", 0) else weight.T
    return _number(node, "alpha") * upright[None]


def _gemm_tensor(layer: Layer, matrix: Array) -> Array:
    node = layer.uses[0].node
    upright = matrix[0] / _number(node, "alpha")
    return np.ascontiguousarray(upright if node.attributes.get_int("transB", 0) else upright.T)


def _matmul_matrix(layer: Layer, weight: Array) -> Array:
    return (weight.T if _matmul_input(layer.uses[0].node) == 0 else weight)[None]


def _matmul_tensor(layer: Layer, matrix: Array) -> Array:
    return np.ascontiguousarray(matrix[0].T if _matmul_input(layer.uses[0].node) == 0 else matrix[0])


def _window(layer: Layer) -> Window:
    kernel = _shape(layer.weight)[2:]
    return Window(layer.uses[0].node, kernel, layer.groups * layer.d_in // prod(kernel), layer.groups)


def _patches(layer: Layer, op: Emitter, value: ir.Value, rows: Rows | None) -> ir.Value:
    return patches(op, value, _window(layer), _array(layer.weight).dtype, rows)


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
KINDS: dict[str, _Kind] = {
    "Conv": _Kind(
        weight=_conv_weight,
        input=lambda node: 0,
        dimensions=_conv_dimensions,
        matrix=lambda layer, weight: weight.reshape(layer.groups, layer.d_out, layer.d_in),
        tensor=lambda layer, matrix: matrix.reshape(_shape(layer.weight)),
        features=_patches,
        responses=lambda layer, op, value: channels_first(op, value, layer.groups, layer.d_out),
        positions=_spatial_positions,
    ),
    "ConvTranspose": _Kind(
        weight=_conv_weight,
        input=lambda node: 0,
        dimensions=_transposed_dimensions,
        matrix=_transposed_matrix,
        tensor=_transposed_tensor,
        features=_patches,
        responses=lambda layer, op, value: channels_first(op, value, layer.groups, layer.d_out),
        positions=_spatial_positions,
    ),
    "Gemm": _Kind(
        weight=_gemm_weight,
        input=lambda node: 0,
        dimensions=lambda node, weight: (1, *_gemm_shape(node, weight)),
        matrix=_gemm_matrix,
        tensor=_gemm_tensor,
        features=lambda layer, op, value, rows: picked(op, _channels_last(op, value, layer.d_in), rows),
        responses=lambda layer, op, value: _channels_last(op, value, layer.d_out),
        positions=_row_positions,
    ),
    "MatMul": _Kind(
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
