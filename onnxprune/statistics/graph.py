"""The statistics graph: the model, its gradient graph and the sums of every layer, as one ONNX graph.

For layer i with features a [groups, d_in, rows] and gradient responses g [groups, d_out, rows] it outputs

    gram/i      Σ a aᵀ   or  rows/i      the a themselves   (see `factors`)
    sum/i       Σ a
    gradient/i  Σ g gᵀ
    count/i     rows

Only these leave the device. Uses of a shared weight are concatenated along rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient import LossHead, attach_loss, backpropagate
from onnxprune.layers import Layer, find_layers
from onnxprune.options import Loss


@dataclass
class StatisticsGraph:
    """The graph and what is in it: layer names in output order, the loss, layers that no gradient reaches.

    `shapes` is a second graph whose outputs, named as the noise inputs, are the shapes the noise must have.
    """

    model: ir.Model
    layers: list[str]
    head: LossHead | None
    blocked: dict[str, str] = field(default_factory=dict)
    shapes: ir.Model | None = None


def build(
    model: ir.Model,
    *,
    loss: Loss,
    gradients: bool,
    only: Collection[str] | None = None,
    sampled: Collection[str] = (),
    labels: bool = False,
) -> StatisticsGraph:
    """Emit the statistics graph of a copy of `model`.

    Args:
        model: a normalised model.
        loss: the loss whose Fisher is wanted.
        gradients: whether G is wanted; without it no backward pass is emitted.
        only: names of the layers wanted; all by default.
        sampled: names of layers whose features leave as rows instead of as a gram.
        labels: take true labels from a graph input instead of sampling them.
    """
    source, model = model, model.clone()
    layers = [layer for layer in find_layers(model.graph) if only is None or layer.name in only]
    op = Emitter(model.graph, "statistics")
    head, blocked, backward = None, dict[str, str](), dict[ir.Value, ir.Value]()
    outputs: dict[str, ir.Value] = {}
    if gradients:
        head = attach_loss(model, op, loss, labels)
        wanted = [use.output for layer in layers for use in layer.uses]
        found = backpropagate(model.graph, op, head.seeds, wanted)
        backward = found.of
        for layer in layers:
            reasons = {reason for use in layer.uses for reason in found.blocked.get(use.output, ())}
            if reasons:
                blocked[layer.name] = "no gradient: " + ", ".join(sorted(reasons))
    for index, layer in enumerate(layers):
        outputs |= _activations(op, layer, index, layer.name in sampled)
        if gradients and layer.name not in blocked:
            outputs |= _gradients(op, layer, index, backward)
    expose(model.graph, outputs)
    shapes = None if head is None else noise_shapes(source, head)
    return StatisticsGraph(model, [layer.name for layer in layers], head, blocked, shapes)


def noise_shapes(source: ir.Model, head: LossHead) -> ir.Model:
    """A copy of `source` whose outputs, named as the noise inputs, are the shapes the noise must have."""
    model = source.clone()
    op = Emitter(model.graph, "statistics")
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    expose(model.graph, {entry.name: op.Shape(values[entry.like.name or ""]) for entry in head.noise})
    return model


def square(op: Emitter, rows: ir.Value, groups: int, other: ir.Value | None = None) -> ir.Value:
    """Σ x yᵀ over rows: [groups, m, rows] × [groups, n, rows] → [groups, m, n]; y = x where not given."""
    other = rows if other is None else other
    if groups > 1:
        product: ir.Value = op.MatMul(rows, op.Transpose(other, perm=[0, 2, 1]))
        return product
    axis = op.ints(0)
    flat = op.Gemm(op.Squeeze(rows, axis), op.Squeeze(other, axis), transB=1)
    result: ir.Value = op.Unsqueeze(flat, axis)
    return result


def _activations(op: Emitter, layer: Layer, index: int, sampled: bool) -> dict[str, ir.Value]:
    features = widened(op, layer, _joined(op, [layer.features(op, use.input) for use in layer.uses]))
    first = {"rows": op.Identity(features)} if sampled else {"gram": square(op, features, layer.groups)}
    made = {
        **first,
        "sum": op.ReduceSum(features, op.ints(2), keepdims=0),
        "count": op.Shape(features, start=2),
    }
    for name, value in made.items():
        value.dtype = ir.DataType.INT64 if name == "count" else sum_type(layer)
    return {f"{name}/{index}": value for name, value in made.items()}


def _gradients(
    op: Emitter, layer: Layer, index: int, backward: Mapping[ir.Value, ir.Value]
) -> dict[str, ir.Value]:
    responses = widened(
        op, layer, _joined(op, [layer.responses(op, backward[use.output]) for use in layer.uses])
    )
    gram = square(op, responses, layer.groups)
    gram.dtype = sum_type(layer)
    return {f"gradient/{index}": gram}


def sum_type(layer: Layer) -> ir.DataType:
    """A type that sums of squares fit in: that of the weights, but float32 for float16 and bfloat16."""
    dtype = layer.weight.dtype
    return dtype if dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) else ir.DataType.FLOAT


def widened(op: Emitter, layer: Layer, rows: ir.Value) -> ir.Value:
    """`rows` in the layer's `sum_type`."""
    dtype = sum_type(layer)
    if layer.weight.dtype != dtype:
        rows = op.Cast(rows, to=dtype.value)
    rows.dtype = dtype
    return rows


def _joined(op: Emitter, parts: Sequence[ir.Value]) -> ir.Value:
    joined: ir.Value = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=2)
    return joined


def expose(graph: ir.Graph, outputs: Mapping[str, ir.Value]) -> None:
    """Make `outputs` the graph's only outputs, under their names."""
    graph.outputs.clear()
    for name, value in outputs.items():
        value.name = name
        value.dtype = value.dtype or ir.DataType.INT64  # only shapes come untyped
        graph.outputs.append(value)
