"""Gather statistics: one session, batch by batch, sums in float64.

The same noise is drawn for the same seed and batch on every provider and in every shard, so that a shard's
sums are what one process would have added for its batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Batch, Data
from onnxprune.errors import StatisticsError, UsageError
from onnxprune.grams import Correlation
from onnxprune.layers import Layer, find_layers
from onnxprune.options import Average, Loss
from onnxprune.progress import Progress, Silent
from onnxprune.session import Provider, Session
from onnxprune.statistics.factors import Factor, Gram, Samples
from onnxprune.statistics.graph import START, StatisticsGraph, build, kept_positions
from onnxprune.statistics.store import LayerStatistics, Statistics

Array = npt.NDArray[Any]

DECAY = 0.95  # the papers' exponential average


@dataclass(frozen=True)
class Gathering:
    """How statistics are gathered; saved with them, and compared before they are merged.

    `positions`: at how many of a sample's positions A is taken at most, drawn by the seed; all if None. G
    is taken at all of them.
    """

    loss: Loss = "auto"
    gradients: bool = True
    average: Average = "mean"
    labels: bool = False
    seed: int = 0
    provider: Provider = "auto"
    positions: int | None = None

    def __post_init__(self) -> None:
        """Refuse to take no positions.

        Raises:
            UsageError: fewer than one.
        """
        if self.positions is not None and self.positions < 1:
            raise UsageError(f"--positions {self.positions}: take at least one, or leave it out to take all")


def collect(
    model: ir.Model,
    sha256: str,
    data: Data,
    how: Gathering | None = None,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
) -> Statistics:
    """Run every batch of `data` and return the sums, of all layers or of those named in `only`.

    Raises:
        StatisticsError: NaN or Inf in a layer's statistics, or positions that cannot be drawn; names the
            layer.
        DataError, GradientError, ModelError: from the data, the gradient graph and the run.
    """
    how = how or Gathering()
    layers = [layer for layer in find_layers(model.graph) if only is None or layer.name in only]
    sampled = {layer.name for layer in layers if _few_rows(layer, data.count, how.positions)}
    graph = build(
        model,
        loss=how.loss,
        gradients=how.gradients,
        only=only,
        sampled=sampled,
        labels=how.labels,
        positions=how.positions,
        batch=min(data.batch_size, data.count),
    )
    session = Session(graph.model, how.provider)
    noise = NoiseSource(graph, how)
    total = Statistics(
        sha256=sha256,
        samples=0,
        loss=graph.head.description if graph.head else "none",
        average=how.average,
        seed=how.seed,
        positions=how.positions,
        blocked=dict(graph.blocked),
    )
    with (progress or Silent()).stage("statistics", data.count) as advance:
        for number, batch in enumerate(data.batches()):
            feeds = feeds_of(graph, batch, noise.draw(number, batch.feeds))
            outputs = session.run({**feeds, START: _start(how.seed, number)})
            _add(total, graph, layers, outputs, batch.count)
            advance(batch.count)
    if not total.samples:
        raise StatisticsError("no samples: the calibration data has no batch")
    for name, correlation in graph.correlations.items():
        total.layers[name] = _put_together(total.layers[name], correlation)
    return total


def _start(seed: int, number: int) -> Array:
    """Where batch `number` starts to draw positions; a stream beside that of the noise."""
    return np.asarray(np.random.default_rng([seed, number, 1]).integers(2**62))


def _few_rows(layer: Layer, samples: int, positions: int | None) -> bool:
    kept = kept_positions(layer, positions)
    return kept is not None and kept * samples < layer.d_in + 1


def feeds_of(graph: StatisticsGraph, batch: Batch, noise: Mapping[str, Array]) -> dict[str, Array]:
    """What one batch gives the graph to eat: inputs, noise, and labels if it takes them."""
    feeds = {**batch.feeds, **noise}
    if graph.head is not None and graph.head.label is not None and batch.labels is not None:
        feeds[graph.head.label] = np.asarray(batch.labels, dtype=np.int64)
    return feeds


class NoiseSource:
    """Draws the noise inputs; their shapes come from a run of the model, once for each shape of the feeds."""

    def __init__(self, graph: StatisticsGraph, how: Gathering) -> None:
        self._head, self._seed = graph.head, how.seed
        needed = graph.head is not None and graph.head.noise and graph.shapes is not None
        self._session = Session(graph.shapes, how.provider) if needed and graph.shapes is not None else None
        self._known: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = {}

    def draw(self, number: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The noise of batch `number`; the same for the same seed on every machine."""
        if self._head is None or self._session is None:
            return {}
        key = tuple(array.shape for array in feeds.values())
        if key not in self._known:
            shapes = self._session.run(feeds)
            self._known[key] = {name: tuple(int(size) for size in shape) for name, shape in shapes.items()}
        return self._head.draw(np.random.default_rng([self._seed, number]), self._known[key])


def _add(
    total: Statistics,
    graph: StatisticsGraph,
    layers: list[Layer],
    outputs: Mapping[str, Array],
    samples: int,
) -> None:
    for index, layer in enumerate(layers):
        made = _layer_statistics(outputs, index, samples, graph.shares.get(layer.name, 1.0))
        if not made.finite():
            raise StatisticsError(
                f"layer {layer.name!r} ({layer.op}) has NaN or Inf in its statistics; "
                "check the calibration data and the model's weights"
            )
        known = total.layers.get(layer.name)
        if total.average == "exponential":
            made = made.scaled()
        if known is None:
            total.layers[layer.name] = made
        else:
            pair = (DECAY, 1 - DECAY) if total.average == "exponential" else (1.0, 1.0)
            total.layers[layer.name] = known.merge(made, *pair)
    total.samples += samples


def _layer_statistics(
    outputs: Mapping[str, Array], index: int, samples: int, share: float
) -> LayerStatistics:
    """Of one batch; a row of features stands for `share` rows. Products wait for `_put_together`."""
    rows = float(outputs[f"count/{index}"].reshape(-1)[0])
    activations: Factor
    if f"rows/{index}" in outputs:
        features = outputs[f"rows/{index}"].transpose(0, 2, 1)
        ones = np.ones((*features.shape[:2], 1), dtype=features.dtype)
        scale = np.sqrt(share).astype(features.dtype)
        activations = Samples(scale * np.concatenate([features, ones], axis=2), rows)
    elif f"products/{index}" in outputs:
        parts = (outputs[f"products/{index}"], outputs[f"sum/{index}"])
        flat = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
        activations = Gram(np.concatenate(flat, axis=1), rows)
    else:
        gram = share * outputs[f"gram/{index}"].astype(np.float64)
        total = share * outputs[f"sum/{index}"].astype(np.float64)
        activations = Gram(_with_bias(gram, total, rows), rows)
    gradient = outputs.get(f"gradient/{index}")
    gradients = None if gradient is None else Gram(gradient.astype(np.float64), rows)
    return LayerStatistics(activations, gradients, rows, float(samples))


def _put_together(layer: LayerStatistics, correlation: Correlation) -> LayerStatistics:
    """The gram of [a; 1] from the summed products and sums of a."""
    factor = layer.activations
    assert isinstance(factor, Gram)
    products, total = np.split(factor.total, [-correlation.width], axis=1)
    gram = _with_bias(correlation.gram(products), total, factor.weight)
    return replace(layer, activations=Gram(gram, factor.weight))


def _with_bias(gram: Array, total: Array, rows: float) -> Array:
    """The gram of [a; 1] from the gram of a, its sum and the number of rows."""
    groups, size, _ = gram.shape
    full = np.empty((groups, size + 1, size + 1), dtype=np.float64)
    full[:, :size, :size] = gram
    full[:, :size, size] = full[:, size, :size] = total
    full[:, size, size] = rows
    return full
