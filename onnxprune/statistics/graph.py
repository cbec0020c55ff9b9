"""The statistics graph: the model, its gradient graph and the sums of every layer, as one ONNX graph.

For layer i with features a [groups, d_in, rows] and gradient responses g [groups, d_out, rows] it outputs

    gram/i      Σ a aᵀ   or  rows/i      the a themselves   (see `factors`)
                         or  products/i  what Σ a aᵀ is put together from   (see `grams`)
    sum/i       Σ a
    gradient/i  Σ g gᵀ
    count/i     rows

or, where a batch has few rows, what a graph of their own makes these of (see `waiting`), as given/<name>/i.
Only these leave the device. Uses of a shared weight are concatenated along rows. Where only some positions of
every sample are taken, a row of a stands for `share` rows; `count` counts them all. g is taken of all: its
squares have heavy tails, so that few rows say little, and its gram costs little beside the backward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.edits import fresh_name
from onnxprune.emit import Emitter
from onnxprune.errors import StatisticsError
from onnxprune.gradient import LossHead, attach_loss, backpropagate
from onnxprune.grams import Correlation, Sliding, choose
from onnxprune.layers import Layer, find_layers
from onnxprune.options import Loss
from onnxprune.rows import Drawn
from onnxprune.statistics.entry import Entry
from onnxprune.statistics.waiting import Waiting

START = "statistics/start"  # the input that says which positions are taken
BATCH = 32  # samples a run where nothing else is known


@dataclass
class StatisticsGraph:
    """The graph and what is in it: layer names in output order, the loss, layers that no gradient reaches.

    `shapes` is a second graph whose outputs, named as the noise inputs, are the shapes the noise must have.
    `correlations` put the products of a layer together, `shares` say how many rows one of its rows stands
    for, where that is not one; both by the layer's name. `waiting` are the sums that are made later, by the
    name of the output that they are made of.
    """

    model: ir.Model
    layers: list[str]
    head: LossHead | None
    blocked: dict[str, str] = field(default_factory=dict)
    shapes: ir.Model | None = None
    correlations: dict[str, Correlation] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)


def build(
    model: ir.Model,
    *,
    loss: Loss,
    gradients: bool,
    only: Collection[str] | None = None,
    sampled: Collection[str] = (),
    labels: bool = False,
    positions: int | None = None,
    batch: int = BATCH,
    wait: bool = False,
) -> StatisticsGraph:
    """Emit the statistics graph of a copy of `model`.

    Args:
        model: a normalised model.
        loss: the loss whose Fisher is wanted.
        gradients: whether G is wanted; without it no backward pass is emitted.
        only: names of the layers wanted; all by default.
        sampled: names of layers whose features leave as rows instead of as a gram.
        labels: take true labels from a graph input instead of sampling them.
        positions: how many positions of every sample the features are taken at, at most; all if None.
        batch: samples a run, from which the cheaper way to a gram is chosen.
        wait: whether sums may be made of several batches at once.

    Raises:
        StatisticsError: `positions` are given, and those of a layer are not known before the run.
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
    drawn = _drawn(model.graph, layers, positions)
    correlations: dict[str, Correlation] = {}
    waiting: dict[str, Waiting] = {}
    for index, layer in enumerate(layers):
        rows = drawn.get(layer.name)
        direct = rows is not None or layer.name in sampled
        cheaper = None if direct else _correlation(layer, batch)
        apart = kept_positions(layer, None) if wait and rows is None else None
        entry = Entry(op, layer, index, waiting, apart, batch)
        if cheaper is None:
            outputs |= entry.activations(layer.name in sampled, rows)
        else:
            correlations[layer.name] = cheaper
            outputs |= entry.correlated(cheaper)
        if gradients and layer.name not in blocked:
            outputs |= entry.gradients(backward)
    expose(model.graph, outputs)
    return StatisticsGraph(
        model,
        [layer.name for layer in layers],
        head,
        blocked,
        None if head is None else noise_shapes(source, head),
        correlations,
        {name: rows.share for name, rows in drawn.items()},
        waiting,
    )


def kept_positions(layer: Layer, positions: int | None) -> int | None:
    """How many rows of a sample are taken where at most `positions` are wanted; None if unknown."""
    counts = [use.positions for use in layer.uses]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    most = len(known) * max(1, positions // len(known)) if positions is not None else sum(known)
    return min(most, sum(known))


def value_bytes(layer: Layer) -> int:
    """What a network's values before and behind a layer take in float32, of one sample; 0 if unknown."""
    positions = kept_positions(layer, None) or 0
    return 4 * layer.groups * positions * (layer.d_in // layer.kernel + layer.d_out)


def _drawn(graph: ir.Graph, layers: Sequence[Layer], positions: int | None) -> dict[str, Drawn]:
    """The rows of layers that have more positions than wanted, by name; adds the input that draws them."""
    if positions is None:
        return {}
    start = ir.val(START, dtype=ir.DataType.INT64, shape=[])
    drawn: dict[str, Drawn] = {}
    for layer in layers:
        counts = {use.positions for use in layer.uses}
        (count, *others) = counts
        if count is None or others:
            reason = "has positions that are not known before the run"
            raise StatisticsError(
                f"layer {layer.name!r} ({layer.op}) "
                f"{'is used on inputs of different size' if others else reason}; "
                "its positions cannot be drawn: leave out --positions"
            )
        wanted = max(1, positions // len(layer.uses))
        if wanted < count:
            drawn[layer.name] = Drawn(start, count, wanted)
    if drawn:
        graph.inputs.append(start)
    return drawn


def _correlation(layer: Layer, batch: int) -> Correlation | None:
    """The gram by correlation, where all uses read inputs of one size and that is the cheaper way."""
    window = layer.window
    if window is None:
        return None
    slidings = {Sliding.of(window, use.input.shape) for use in layer.uses}
    sliding = slidings.pop()
    if slidings or sliding is None:
        return None
    choice = choose(sliding, batch)
    return choice.correlation if choice.way == "correlation" else None


def noise_shapes(source: ir.Model, head: LossHead) -> ir.Model:
    """A copy of `source` whose outputs, named as the noise inputs, are the shapes the noise must have."""
    model = source.clone()
    op = Emitter(model.graph, "statistics")
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    expose(model.graph, {entry.name: op.Shape(values[entry.like.name or ""]) for entry in head.noise})
    return model


def expose(graph: ir.Graph, outputs: Mapping[str, ir.Value]) -> None:
    """Make `outputs` the graph's only outputs, under their names; who else has one gets another."""
    graph.outputs.clear()
    made = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in [value for value in made if value.name in outputs]:
        value.name = fresh_name(graph, f"{value.name}/before")
    for name, value in outputs.items():
        value.name = name
        value.dtype = value.dtype or ir.DataType.INT64  # only shapes come untyped
        graph.outputs.append(value)
