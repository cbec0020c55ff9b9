"""Affine folding: BatchNormalization and per-channel Mul, Add, Sub, Div disappear into linear layers.

y = scale · x + shift is folded into the Conv, ConvTranspose, Gemm or MatMul that yields x, or else into the
one that reads y (past MaxPool, GlobalAveragePool and Flatten), wherever that is exact in real arithmetic:
nobody else reads x (or y), the weight is not shared, and no zero padding comes between a shift and the layer.
Batch normalisation at inference: scale = γ / √(σ² + ε), shift = β − μ · scale (Ioffe & Szegedy 2015,
algorithm 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.edits import add_initializer, set_input, take_place
from onnxprune.normalise.linear import FLOATS, Linear, Vector, channel_vector, find_linear
from onnxprune.normalise.note import Note

Array = npt.NDArray[Any]


@dataclass
class Affine:
    """y = scale · x + shift, constants broadcast against x; both float64."""

    x: ir.Value
    y: ir.Value
    scale: Array
    shift: Array

    def per_channel(self, axis: int, rank: int, channels: int) -> tuple[Vector, Vector] | None:
        """Scale and shift as one number a channel each, [channels]; None where they are not that."""
        scale = channel_vector(self.scale, axis, rank, channels)
        shift = channel_vector(self.shift, axis, rank, channels)
        return None if scale is None or shift is None else (scale, shift)


class FoldAffine(ir.passes.InPlacePass):
    """Folds per-channel affine nodes of the main graph into the layer before or behind them."""

    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Repeat until nothing folds: a fold can make the next affine node a neighbour of the layer."""
        modified = False
        while any([self._fold(model.graph, node) for node in list(model.graph)]):
            modified = True
        return ir.passes.PassResult(model, modified)

    def _fold(self, graph: ir.Graph, node: ir.Node) -> bool:
        read = _READERS.get(node.op_type) if not node.domain else None
        affine = read(node) if read is not None else None
        if affine is None or affine.x.dtype not in FLOATS:
            return False
        return self._into_producer(graph, node, affine) or self._into_consumer(graph, node, affine)

    def _into_producer(self, graph: ir.Graph, node: ir.Node, affine: Affine) -> bool:
        layer = find_linear(affine.x.producer())
        if layer is None or not _only_link(affine.x) or layer.rank is None or layer.axis is None:
            return False
        bias, vectors = layer.bias(), affine.per_channel(layer.axis, layer.rank, layer.outputs)
        if bias is None or vectors is None:
            return False
        scale, shift = vectors
        matmul = layer.node.op_type == "MatMul"
        if matmul and layer.add is None and node.op_type == "Add":
            return False  # it already is the bias of that MatMul
        if not self._update(graph, node, layer, layer.output_scaled(scale), scale * bias + shift, scale):
            return False
        if matmul and layer.add is None and shift.any():
            _become_add(graph, node, affine, shift)
        else:
            _bypass(graph, node, affine)
        return True

    def _into_consumer(self, graph: ir.Graph, node: ir.Node, affine: Affine) -> bool:
        if find_linear(node) is not None:
            return False  # the bias of a MatMul stays with it
        found = _layer_behind(affine)
        if found is None:
            return False
        layer, (scale, shift) = found
        bias = layer.bias()
        if bias is None or (layer.pads and shift.any()) or not self._can_hold_bias(layer, shift):
            return False
        new_bias = bias + layer.response(shift)
        if not self._update(graph, node, layer, layer.input_scaled(scale), new_bias, scale):
            return False
        affine.y.replace_all_uses_with(affine.x)
        graph.remove(node, safe=True)
        return True

    def _can_hold_bias(self, layer: Linear, shift: Vector) -> bool:
        return layer.node.op_type != "MatMul" or layer.add is not None or not shift.any()

    def _update(
        self, graph: ir.Graph, node: ir.Node, layer: Linear, weight: Array, bias: Vector, scale: Vector
    ) -> bool:
        """Give `layer` its new weight and bias; False, with a note, where they cannot be written."""
        rescaled = bool((scale != 1).any())
        with np.errstate(over="ignore"):  # checked on the next lines
            new_bias = bias.astype(weight.dtype)
        if not (np.isfinite(weight).all() and np.isfinite(new_bias).all()):
            self._note(node, f"not folded into {layer.node.name}: the result overflows {weight.dtype}")
            return False
        if rescaled and (len(layer.weight.uses()) > 1 or layer.weight.is_graph_output()):
            self._note(node, f"not folded into {layer.node.name}: its weight {layer.weight.name} is shared")
            return False
        if rescaled:
            layer.weight.const_value = ir.tensor(weight, name=layer.weight.name)
        _set_bias(graph, layer, new_bias)
        return True

    def _note(self, node: ir.Node, reason: str) -> None:
        note = Note(str(node.name), f"{node.op_type} {reason}")
        if note not in self.notes:
            self.notes.append(note)


def _batch_normalization(node: ir.Node) -> Affine | None:
    constants = [_constant(value) for value in node.inputs[1:5]]
    x = node.inputs[0]
    unused = all(not output.uses() and not output.is_graph_output() for output in node.outputs[1:])
    if (
        node.attributes.get_int("training_mode", 0)
        or not unused
        or x is None
        or any(c is None for c in constants)
    ):
        return None
    gamma, beta, mean, variance = (c.astype(np.float64) for c in constants if c is not None)
    rank = _rank(x)
    if rank is None:
        return None
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    shape = (-1,) + (1,) * (rank - 2)
    return Affine(x, node.outputs[0], scale.reshape(shape), (beta - mean * scale).reshape(shape))


def _rank(x: ir.Value) -> int | None:
    """Rank of `x` as annotated, or as the layer that yields it implies."""
    layer = find_linear(x.producer())
    return x.shape.rank() if x.shape is not None else layer.rank if layer is not None else None


def _arithmetic(
    formula: Callable[[Array, bool], tuple[Array, Array] | None],
) -> Callable[[ir.Node], Affine | None]:
    """Reader of a two-operand op; `formula` takes the constant and whether it is the left operand."""

    def read(node: ir.Node) -> Affine | None:
        for index in (0, 1):
            x, constant = node.inputs[1 - index], _constant(node.inputs[index])
            if x is None or constant is None or x.is_initializer():
                continue
            pair = formula(constant.astype(np.float64), index == 0)
            return None if pair is None else Affine(x, node.outputs[0], *pair)
        return None

    return read


_ONE, _ZERO = np.ones(()), np.zeros(())
_READERS: dict[str, Callable[[ir.Node], Affine | None]] = {
    "BatchNormalization": _batch_normalization,
    "Mul": _arithmetic(lambda c, left: (c, _ZERO)),
    "Add": _arithmetic(lambda c, left: (_ONE, c)),
    "Sub": _arithmetic(lambda c, left: (-_ONE, c) if left else (_ONE, -c)),
    "Div": _arithmetic(lambda c, left: None if left or not c.all() else (1 / c, _ZERO)),
}


def _layer_behind(affine: Affine) -> tuple[Linear, tuple[Vector, Vector]] | None:
    """The only layer that reads y, through ops that commute with the map; its scale and shift a channel."""
    value, repeat = affine.y, 1
    while _only_link(value):
        node = next(iter(value.uses())).node
        if node.graph is not affine.y.graph:
            return None  # captured by a subgraph, which is left alone
        layer = find_linear(node)
        if layer is not None and layer.node is node and node.inputs[0] is value:
            vectors = _seen_by(layer, affine, repeat)
            return None if vectors is None else (_with_bias(layer), vectors)
        if not _commutes(node, affine.scale):
            return None
        if node.op_type == "Flatten":
            repeat = _spatial_size(value)
        value = node.outputs[0]
    return None


def _seen_by(layer: Linear, affine: Affine, repeat: int) -> tuple[Vector, Vector] | None:
    """Scale and shift an input channel of `layer`; a Flatten on the way made `repeat` of each channel."""
    shape = affine.x.shape
    if layer.node.attributes.get_int("transA", 0) or layer.axis is None or shape is None or repeat < 1:
        return None
    axis, channels = (layer.axis if repeat == 1 else 1), layer.inputs // repeat
    if axis >= shape.rank() or shape[axis] != channels:  # also where x itself is broadcast
        return None
    vectors = affine.per_channel(axis, shape.rank(), channels)
    return None if vectors is None else (vectors[0].repeat(repeat), vectors[1].repeat(repeat))


def _with_bias(layer: Linear) -> Linear:
    """A MatMul together with the Add behind it, if that holds its bias."""
    uses = list(layer.output.uses())
    found = find_linear(uses[0].node) if len(uses) == 1 and layer.node.op_type == "MatMul" else None
    return found if found is not None and found.node is layer.node else layer


def _commutes(node: ir.Node, scale: Array) -> bool:
    if node.domain or len(node.outputs) != 1:
        return False
    return {
        "MaxPool": bool((scale >= 0).all()),
        "GlobalAveragePool": True,
        "Flatten": node.attributes.get_int("axis", 1) == 1,
    }.get(node.op_type, False)


def _spatial_size(value: ir.Value) -> int:
    """Positions a channel of `value`, 0 where that is not known."""
    sizes = [] if value.shape is None else [size for size in value.shape[2:] if isinstance(size, int)]
    complete = value.shape is not None and len(sizes) == value.shape.rank() - 2
    return math.prod(sizes) if complete else 0


def _only_link(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _constant(value: ir.Value | None) -> Array | None:
    return (
        value.const_value.numpy()
        if value is not None and value.is_initializer() and value.const_value
        else None
    )


def _set_bias(graph: ir.Graph, layer: Linear, bias: Array) -> None:
    """Write `bias` where the layer keeps its own; a MatMul without Add and all-zero new ones need none."""
    node, index = (layer.node, 2) if layer.add is None else (layer.add, 1)
    if layer.add is not None:
        index = next(i for i, value in enumerate(layer.add.inputs) if value is not layer.node.outputs[0])
    present = node.inputs[index] if len(node.inputs) > index else None
    if present is None and (layer.node.op_type == "MatMul" or not bias.any()):
        return
    if node.op_type == "Gemm":
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    set_input(node, index, bias, f"{layer.weight.name}/bias")


def _bypass(graph: ir.Graph, node: ir.Node, affine: Affine) -> None:
    """Drop `node`; the layer now yields y, under y's name."""
    name = affine.y.name
    affine.y.replace_all_uses_with(affine.x, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    affine.x.name, affine.x.type, affine.x.shape = name, affine.y.type, affine.y.shape


def _become_add(graph: ir.Graph, node: ir.Node, affine: Affine, shift: Vector) -> None:
    """Replace `node` by the Add of `shift` that makes a MatMul a layer with bias."""
    assert affine.x.dtype is not None  # checked against FLOATS
    constant = add_initializer(graph, f"{affine.x.name}/bias", shift.astype(affine.x.dtype.numpy()))
    take_place(ir.node("Add", [affine.x, constant], name=node.name), node)
