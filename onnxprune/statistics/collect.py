"""Gather statistics: one session, batch by batch, sums in float64.

The same noise is drawn for the same seed and batch on every provider and in every shard, so that a shard's
sums are what one process would have added for its batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Batch, Data
from onnxprune.errors import StatisticsError, UsageError
from onnxprune.layers import Layer, find_layers
from onnxprune.options import Average, Loss
from onnxprune.progress import Progress, Silent
from onnxprune.session import Provider, Session, on_gpu
from onnxprune.statistics.feeding import NoiseSource, portions
from onnxprune.statistics.graph import START, StatisticsGraph, build, kept_positions
from onnxprune.statistics.resident import Resident
from onnxprune.statistics.store import LayerStatistics, Statistics
from onnxprune.statistics.totals import Totals
from onnxprune.statistics.waiting import Queue

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gathering:
    """How statistics are gathered; saved with them, and compared before they are merged.

    `positions`: at how many of a sample's positions A is taken at most, drawn by the seed; all if None. G
    is taken at all of them. `memory`: bytes to stay within (see `gather`).
    """

    loss: Loss = "auto"
    gradients: bool = True
    average: Average = "mean"
    labels: bool = False
    seed: int = 0
    provider: Provider = "auto"
    positions: int | None = None
    memory: int | None = field(default=None, compare=False)  # changes what is done, not what comes of it

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
    run: int | None = None,
    name: str = "statistics",
) -> Statistics:
    """Run every batch of `data` and return the sums, of all layers or of those named in `only`.

    `run` is how many samples of a batch run at once (see `portions`), `name` the stage's for the progress.

    Raises:
        StatisticsError: NaN or Inf in a layer's statistics, or positions that cannot be drawn; names the
            layer.
        DataError, GradientError, ModelError: from the data, the gradient graph and the run.
    """
    how = how or Gathering()
    layers = [layer for layer in find_layers(model.graph) if only is None or layer.name in only]
    sampled = {layer.name for layer in layers if few_rows(layer, data.count, how.positions)}
    graph = build(
        model,
        loss=how.loss,
        gradients=how.gradients,
        only=only,
        sampled=sampled,
        labels=how.labels,
        positions=how.positions,
        batch=min(run or data.batch_size, data.count),
        wait=how.average == "mean" and not on_gpu(how.provider),
    )
    runner = _runner(graph, how)
    queues = {
        name: Queue.of(waiting, how.provider, how.memory is not None)
        for name, waiting in graph.waiting.items()
    }
    noise = NoiseSource(graph, how.seed, how.provider)
    totals = [Totals(how.average == "exponential", graph.shares.get(layer.name, 1.0)) for layer in layers]
    samples = 0
    with (progress or Silent()).stage(name, data.count) as advance:
        for number, batch, drawn in portions(data, noise, run):
            feeds = feeds_of(graph, batch, drawn)
            outputs = runner.run({**feeds, START: _start(how.seed, number)})
            for output, queue in queues.items():
                outputs |= queue.add(outputs.pop(output))
            _add(totals, outputs)
            samples += batch.count
            advance(batch.count)
    if not samples:
        raise StatisticsError("no samples: the calibration data has no batch")
    for queue in queues.values():
        _add(totals, queue.flush())
    if isinstance(runner, Resident):
        _add(totals, runner.flush())
    total = Statistics(
        sha256=sha256,
        samples=samples,
        loss=graph.head.description if graph.head else "none",
        average=how.average,
        seed=how.seed,
        positions=how.positions,
        blocked=dict(graph.blocked),
    )
    for layer in layers:
        total.layers[layer.name] = _finished(layer, totals.pop(0), samples, graph)  # none is held twice
    return total


def _runner(graph: StatisticsGraph, how: Gathering) -> Session | Resident:
    """On a GPU one whose sums stay there, where every batch counts alike."""
    if on_gpu(how.provider) and how.average == "mean":
        return Resident.of(graph.model, how.provider)
    return Session(graph.model, how.provider, lean=how.memory is not None)


def _add(totals: Sequence[Totals], outputs: Mapping[str, Array]) -> None:
    """Give every layer its own outputs, which end with its number."""
    own: dict[int, dict[str, Array]] = defaultdict(dict)
    for name, array in outputs.items():
        kind, _, number = name.partition("/")
        own[int(number)][kind] = array
    for index, found in own.items():
        totals[index].add(found)


def _finished(layer: Layer, sums: Totals, samples: int, graph: StatisticsGraph) -> LayerStatistics:
    made = sums.statistics(samples, graph.correlations.get(layer.name))
    if not made.finite():
        raise StatisticsError(
            f"layer {layer.name!r} ({layer.op}) has NaN or Inf in its statistics; "
            "check the calibration data and the model's weights"
        )
    return made


def _start(seed: int, number: int) -> Array:
    """Where batch `number` starts to draw positions; a stream beside that of the noise."""
    return np.asarray(np.random.default_rng([seed, number, 1]).integers(2**62))


def few_rows(layer: Layer, samples: int, positions: int | None) -> bool:
    """Whether a layer has so few rows in all that they are kept instead of a gram."""
    kept = kept_positions(layer, positions)
    return kept is not None and kept * samples < layer.d_in + 1


def feeds_of(graph: StatisticsGraph, batch: Batch, noise: Mapping[str, Array]) -> dict[str, Array]:
    """What one batch gives the graph to eat: inputs, noise, and labels if it takes them."""
    feeds = {**batch.feeds, **noise}
    if graph.head is not None and graph.head.label is not None and batch.labels is not None:
        feeds[graph.head.label] = np.asarray(batch.labels, dtype=np.int64)
    return feeds
