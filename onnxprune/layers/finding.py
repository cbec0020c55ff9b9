"""Finding: which nodes of a graph are layers, and why others are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxprune.layers.kinds import (
    KINDS,
    QUANTISED,
    is_constant,
)
from onnxprune.layers.layer import Layer, Use

Array = npt.NDArray[Any]


_GRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
_RECURRENT = "recurrent weights are left alone: no gradient rule reaches inside the cell"
#: Op types whose weights are never pruned, with the reason.
LEFT_ALONE = {
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulNBits", "QGemm"), QUANTISED
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
}


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
    if not groups * d_out * d_in:
        return f"weight {weight.name} is empty"
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
        exclusive = other is not None and len(list(other.uses())) == 1 and is_constant(other)
        if exclusive and other is not None and width is not None and other.shape is not None:
            sizes = [int(size) for size in other.shape.numpy()]
            if sizes and sizes[-1] == width[-1] and prod(sizes) == width[-1]:
                return Use(node, value, added.outputs[0]), other
    return Use(node, value, output), None
