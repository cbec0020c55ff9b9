"""Gather statistics: one session, batch by batch, sums in float64.

The same noise is drawn for the same seed and batch on every provider and in every shard, so that a shard's
sums are what one process would have added for its batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Batch, Data
from onnxprune.data.inputs import fixed_batch
from onnxprune.errors import StatisticsError, UsageError
from onnxprune.layers import Layer, find_layers
from onnxprune.memory import be_generous
from onnxprune.options import Average, Loss
from onnxprune.progress import Progress, Silent
from onnxprune.session import Provider, Session, on_gpu
from onnxprune.statistics.feeding import Feeder, NoiseSource, joined
from onnxprune.statistics.graph import START, StatisticsGraph, build, kept_positions, value_bytes
from onnxprune.statistics.resident import Resident
from onnxprune.statistics.store import LayerStatistics, Statistics
from onnxprune.statistics.totals import Totals
from onnxprune.statistics.waiting import Queues

Array = npt.NDArray[Any]

# ResNet-20 takes 5.9 ms an image for 64 at once, 5.4 for 16, whose largest values take 2 MiB. With fewer than
# some samples at once, writing the sums takes more time than it saves.
_CACHE = 2 << 20
_FEWEST = 8
_ON_GPU = 64 << 20  # starting its operators takes a GPU longer than small networks' values of less


@dataclass(frozen=True)
class Gathering:
    """How statistics are gathered; saved with them, and compared before they are merged.

    `positions`: at how many of a sample's positions A is taken at most, drawn by the seed; all if None. G
    is taken at all of them. `memory`: bytes to stay within (see `gather`). `grain`: samples that noise is
    drawn for at a time, where batches are several of those given (see `arranged`).
    """

    loss: Loss = "auto"
    gradients: bool = True
    average: Average = "mean"
    labels: bool = False
    seed: int = 0
    provider: Provider = "auto"
    positions: int | None = None
    memory: int | None = field(default=None, compare=False)  # changes what is done, not what comes of it
    grain: int | None = field(default=None, compare=False)  # likewise

    def __post_init__(self) -> None:
        """Refuse to take no positions.

        Raises:
            UsageError: fewer than one.
        """
        if self.positions is not None and self.positions < 1:
            raise UsageError(f"--positions {self.positions}: take at least one, or leave it out to take all")

    def divides(self, data: Data) -> bool:
        """Whether the sums are the same however many samples of a batch run at once."""
        return fixed_batch(data.inputs) is None and self.average == "mean" and self.positions is None

    def portion(self, layers: Sequence[Layer], data: Data) -> int | None:
        """How many samples run fastest at once, in a cache or to keep a GPU busy; None: whole batches."""
        if not layers or not self.divides(data):
            return None
        most = max(1, *map(value_bytes, layers))
        if on_gpu(self.provider):
            return max(data.batch_size, _ON_GPU // most)
        return max(_FEWEST, _CACHE // most)


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

    `run` is how many samples of a batch run at once (see `Collector`), `name` the stage's for the progress.

    Raises:
        StatisticsError: NaN or Inf in a layer's statistics, or positions that cannot be drawn; names the
            layer.
        DataError, GradientError, ModelError: from the data, the gradient graph and the run.
    """
    data, how = arranged(model, data, how or Gathering())
    collector = Collector(model, data, how, only, run=run)
    with (progress or Silent()).stage(name, data.count) as advance:
        for number, batch in enumerate(data.batches()):
            collector.add(number, batch)
            advance(batch.count)
    return collector.statistics(sha256)


def arranged(model: ir.Model, data: Data, how: Gathering) -> tuple[Data, Gathering]:
    """Data of larger batches where that is faster and memory is not limited, and how to gather them then."""
    run = how.portion(find_layers(model.graph).layers, data) if how.memory is None else None
    larger = joined(data, run)
    return larger, how if larger is data else replace(how, grain=data.batch_size)


@dataclass
class Partial:
    """What a collector has of some batches: sums, and by name and batch what waits for other batches."""

    samples: int
    totals: list[Totals]
    waiting: dict[str, dict[int, Array]]


class Collector:
    """Adds up batches of `data`, in any order; they may be shared out among several collectors.

    Whatever each of these has seen, one that takes in what the others have gathered ends up with the sums of
    all, the same to the rounding of float64: batches draw noise and positions by their numbers, and products
    in float32 are of the same rows.
    """

    def __init__(
        self,
        model: ir.Model,
        data: Data,
        how: Gathering,
        only: Collection[str] | None = None,
        threads: int = 0,
        run: int | None = None,
    ) -> None:
        """Build the graph and load it.

        `threads` are those that it runs on, 0: one for each processor; `run` is how many samples of a batch
        run at once, as many as is fastest if None.

        Raises:
            StatisticsError, GradientError, ModelError: as `collect`.
        """
        if how.memory is None:
            be_generous()
        self._how = how
        self._layers = [layer for layer in find_layers(model.graph) if only is None or layer.name in only]
        run = run or how.portion(self._layers, data)
        self._graph = graph = build(
            model,
            loss=how.loss,
            gradients=how.gradients,
            only=only,
            sampled={layer.name for layer in self._layers if few_rows(layer, data.count, how.positions)},
            labels=how.labels,
            positions=how.positions,
            batch=min(run or data.batch_size, data.batch_size, data.count),
            wait=how.average == "mean" and not on_gpu(how.provider),
        )
        self._runner = _runner(graph, how, threads)
        self._queues = Queues(graph.waiting, how.provider, threads, lean=how.memory is not None)
        noise = NoiseSource(graph, how.seed, how.provider, threads)
        self._feeder = Feeder(data, noise, run, how.grain)
        averaged = data.batch_count if how.average == "exponential" else None
        self._totals = [Totals(averaged, graph.shares.get(layer.name, 1.0)) for layer in self._layers]
        self._samples = 0

    def add(self, number: int, batch: Batch) -> None:
        """Run batch `number`.

        Raises:
            ModelError: it does not run.
        """
        for place, part, noise in self._feeder.portions(number, batch):
            feeds = feeds_of(self._graph, part, noise)
            if self._how.positions is not None:
                feeds[START] = _start(self._how.seed, place)
            self._add(place, self._queues.add(place, self._runner.run(feeds)))
        self._samples += batch.count

    def partial(self) -> Partial:
        """What was gathered so far, for another to take in."""
        self._bring()
        return Partial(self._samples, self._totals, self._queues.waits())

    def take_in(self, other: Partial) -> None:
        """Add what another collector of the same data has gathered of other batches."""
        for mine, theirs in zip(self._totals, other.totals, strict=True):
            mine.merge(theirs)
        for name, parts in other.waiting.items():
            for number, part in parts.items():
                self._add(number, self._queues.add(number, {name: part}))
        self._samples += other.samples

    def statistics(self, sha256: str) -> Statistics:
        """The statistics of all that was gathered, of the model with that hash; it is given away.

        Raises:
            StatisticsError: NaN or Inf, or there was no batch.
        """
        if not self._samples:
            raise StatisticsError("no samples: the calibration data has no batch")
        self._bring()
        for made in self._queues.flush():
            self._add(0, made)
        graph = self._graph
        total = Statistics(
            sha256=sha256,
            samples=self._samples,
            loss=graph.head.description if graph.head else "none",
            average=self._how.average,
            seed=self._how.seed,
            positions=self._how.positions,
            blocked=dict(graph.blocked),
        )
        for layer in self._layers:  # none is held twice
            total.layers[layer.name] = _finished(layer, self._totals.pop(0), self._samples, graph)
        return total

    def _bring(self) -> None:
        """To the host, what adds up on a device."""
        if isinstance(self._runner, Resident):
            self._add(0, self._runner.flush())

    def _add(self, number: int, outputs: Mapping[str, Array]) -> None:
        """Give every layer its own outputs, which end with its number."""
        own: dict[int, dict[str, Array]] = defaultdict(dict)
        for name, array in outputs.items():
            kind, _, index = name.partition("/")
            own[int(index)][kind] = array
        for place, found in own.items():
            self._totals[place].add(number, found)


def _runner(graph: StatisticsGraph, how: Gathering, threads: int) -> Session | Resident:
    """On a GPU one whose sums stay there, where every batch counts alike."""
    if on_gpu(how.provider) and how.average == "mean":
        return Resident.of(graph.model, how.provider, threads)
    return Session(graph.model, how.provider, threads=threads, lean=how.memory is not None)


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
