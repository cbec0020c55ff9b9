"""First-order statistics of units: per sample, what an activation and its gradient say together.

For activations a_p at positions p of one channel, and the gradient that reaches them through *one* reader,

    products   Σ_p a_p ∂L/∂a_p        gradients   Σ_p ∂L/∂a_p        mean   ā over samples and positions

of which all scores of the Mean Replacement paper are made (Table 1 and appendix 6.1). A value with several
readers has a gradient for each, since a unit is taken from every reader separately; they add up. Samples are
taken to lie along the first axis, as those of the data do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Data
from onnxprune.emit import Emitter
from onnxprune.gradient import attach_loss, backpropagate, takes_labels
from onnxprune.layers import find_layers
from onnxprune.progress import Progress, Silent
from onnxprune.session import Session
from onnxprune.statistics.collect import Gathering, feeds_of
from onnxprune.statistics.feeding import NoiseSource
from onnxprune.statistics.graph import StatisticsGraph, expose, noise_shapes

Array = npt.NDArray[Any]


class Site(NamedTuple):
    """A side of a layer, and the axis of its channels there."""

    layer: str
    side: Literal["input", "output"]
    axis: int


@dataclass
class FirstOrder:
    """Of one site: products and gradients [samples, channels], mean [channels], all float64."""

    products: Array
    gradients: Array
    mean: Array


@dataclass
class FirstOrders:
    """By site; sites that no gradient reaches are in `blocked` with the reason. `loss` is a sentence."""

    of: dict[Site, FirstOrder]
    blocked: dict[Site, str]
    loss: str


def collect_first_order(
    model: ir.Model, data: Data, sites: Collection[Site], how: Gathering, progress: Progress | None = None
) -> FirstOrders:
    """Run every batch of `data`, with true labels where it has them and the model classifies.

    Args:
        model: a normalised model; not changed.
        data: calibration data.
        sites: what is wanted.
        how: loss, seed and provider; the rest is of no meaning here.
        progress: told of the run.

    Raises:
        GradientError: no output of the model is a float.
    """
    graph, blocked = _build(model, sites, how, labels=data.labelled and takes_labels(model.graph, how.loss))
    reached = [site for site in sites if site not in blocked]
    session, noise = Session(graph.model, how.provider), NoiseSource(graph, how.seed, how.provider)
    parts: dict[str, list[Array]] = {}
    with (progress or Silent()).stage("unit scores", data.count) as advance:
        for number, batch in enumerate(data.batches()):
            outputs = session.run(feeds_of(graph, batch, noise.draw(number, batch.feeds)))
            for name, array in outputs.items():
                parts.setdefault(name, []).append(array.astype(np.float64))
            advance(batch.count)
    found = {
        site: FirstOrder(
            np.concatenate(parts[f"products/{index}"]),
            np.concatenate(parts[f"gradients/{index}"]),
            sum(parts[f"sum/{index}"]) / sum(count.item() for count in parts[f"count/{index}"]),
        )
        for index, site in enumerate(reached)
    }
    return FirstOrders(found, blocked, graph.head.description if graph.head else "none")


def _build(
    model: ir.Model, sites: Collection[Site], how: Gathering, labels: bool
) -> tuple[StatisticsGraph, dict[Site, str]]:
    source, model = model, model.clone()
    layers = {layer.name: layer for layer in find_layers(model.graph)}
    values = {
        site: [
            _edge(use.node, use.input) if site.side == "input" else use.output
            for use in layers[site.layer].uses
        ]
        for site in sites
    }
    op = Emitter(model.graph, "scores")
    head = attach_loss(model, op, how.loss, labels)
    found = backpropagate(model.graph, op, head.seeds, [value for uses in values.values() for value in uses])
    blocked = {
        site: "no gradient: " + ", ".join(reasons)
        for site, uses in values.items()
        if (reasons := sorted({reason for value in uses for reason in found.blocked.get(value, ())}))
    }
    outputs: dict[str, ir.Value] = {}
    for index, site in enumerate(site for site in sites if site not in blocked):
        pairs = [(_rows(op, v, site.axis), _rows(op, found.of[v], site.axis)) for v in values[site]]
        made = [_sums(op, *pair) for pair in pairs]
        outputs |= {
            f"{name}/{index}": op.Sum(*(part[name] for part in made)) if len(made) > 1 else made[0][name]
            for name in made[0]
        }
    for value in outputs.values():
        value.dtype = ir.DataType.FLOAT
    expose(model.graph, outputs)
    return StatisticsGraph(model, [], head, {}, noise_shapes(source, head)), blocked


def _edge(node: ir.Node, value: ir.Value) -> ir.Value:
    """A copy of `value` that only `node` reads, to tell the gradient through one reader from the rest."""
    copy = ir.Value(name=f"{value.name}/{node.name}", shape=value.shape, type=value.type)
    identity = ir.Node("", "Identity", [value], outputs=[copy], name=f"{node.name}/edge")
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, identity)
    node.replace_input_with(list(node.inputs).index(value), copy)
    return copy


def _rows(op: Emitter, value: ir.Value, axis: int) -> ir.Value:
    """[samples, positions, channels] in float32."""
    assert value.shape is not None
    rank = len(value.shape)
    last = [*(k for k in range(rank) if k != axis % rank), axis % rank]
    moved = value if last == list(range(rank)) else op.Transpose(value, perm=last)
    samples = op.Shape(op.graph.inputs[0], start=0, end=1)
    channels = op.Shape(moved, start=-1)
    shaped = op.Reshape(moved, op.Concat(samples, op.ints(-1), channels, axis=0))
    rows: ir.Value = op.Cast(shaped, to=ir.DataType.FLOAT.value)
    return rows


def _sums(op: Emitter, activations: ir.Value, gradients: ir.Value) -> dict[str, ir.Value]:
    positions = op.ints(1)
    counted = op.Shape(activations, start=0, end=2)
    return {
        "products": op.ReduceSum(op.Mul(activations, gradients), positions, keepdims=0),
        "gradients": op.ReduceSum(gradients, positions, keepdims=0),
        "sum": op.ReduceSum(activations, op.ints(0, 1), keepdims=0),
        "count": op.Cast(op.ReduceProd(counted, op.ints(0), keepdims=0), to=ir.DataType.FLOAT.value),
    }
