"""Feeding: the noise of every batch, and batches that run in portions, or several at once.

The noise of a batch as it was given is drawn for the whole of it, whatever runs at once: what is sampled
depends neither on the machine nor on how much memory there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Batch, Data
from onnxprune.errors import ModelError
from onnxprune.session import Provider, Session
from onnxprune.statistics.graph import StatisticsGraph

Array = npt.NDArray[Any]

_LEAST = 8  # runs that are left where batches are joined, for workers to share and for progress to be seen
_MOST = 8  # batches at once: what a network has beside its layers is not counted, and grows with them
_FEW = 4  # shapes, for each of which a session may be opened anew: it holds the weights


def joined(data: Data, run: int | None) -> Data:
    """`data` whose batches are several of those given, of at most `run` samples together; None: as it is."""
    together = min(_MOST, min(run or 0, data.count // _LEAST) // data.batch_size)
    if together < 2 or len(data.parts) > 1:  # parts differ in shape
        return data
    return replace(data, batch_size=together * data.batch_size)


class NoiseSource:
    """Draws the noise inputs; their shapes come from a run of the model, once for each shape of the feeds."""

    def __init__(self, graph: StatisticsGraph, seed: int, provider: Provider, threads: int = 0) -> None:
        self._head, self._seed, self._provider, self._threads = graph.head, seed, provider, threads
        needed = graph.head is not None and bool(graph.head.noise)
        self._graph = graph.shapes if needed else None
        self._session: Session | None = None
        self._known: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = {}

    def draw(self, number: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The noise of batch `number`; the same for the same seed on every machine."""
        return self.drawn(number, self.shapes(feeds))

    def drawn(self, number: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Noise of these shapes, of batch `number`."""
        if self._head is None or not shapes:
            return {}
        return self._head.draw(np.random.default_rng([self._seed, number]), shapes)

    def shapes(self, feeds: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """The shapes of the noise for these feeds, by input."""
        if self._graph is None:
            return {}
        key = tuple(array.shape for array in feeds.values())
        if key not in self._known:
            session = self._session or self._open(self._graph)
            if len(self._known) > _FEW:
                self._session = session
            shapes = session.run(feeds)
            self._known[key] = {name: tuple(int(size) for size in shape) for name, shape in shapes.items()}
        return self._known[key]

    def _open(self, graph: ir.Model) -> Session:
        return Session(graph, self._provider, threads=self._threads, lean=True)

    def axes(self, data: Data) -> dict[str, int] | None:
        """The axis that samples lie along, by input; None where it cannot be told."""
        one, two = (next(replace(data, batch_size=size).batches()) for size in (1, 2))
        found: dict[str, int] = {}
        if two.count != 2:
            return None
        try:
            first, second = self.shapes(one.feeds), self.shapes(two.feeds)
        except ModelError:  # a batch size is written into its nodes, though not into its inputs
            return None
        for name, shape in first.items():
            differ = [
                axis
                for axis, pair in enumerate(zip(shape, second[name], strict=True))
                if pair[1] == 2 * pair[0] > 0
            ]
            if len(differ) != 1:
                return None
            found[name] = differ[0]
        return found

    def split(
        self, number: int, grain: int, parts: Sequence[Batch], axes: Mapping[str, int]
    ) -> Iterator[dict[str, Array]]:
        """The noise of samples that lie along the `axes` of it, part by part.

        It is drawn for `grain` of them at a time, as the noise of the batches from `number` on.
        """
        first, count = parts[0], sum(part.count for part in parts)
        shapes = self.shapes(first.feeds)
        each = {name: shape[axes[name]] // first.count for name, shape in shapes.items()}

        def of(samples: int) -> dict[str, tuple[int, ...]]:
            return {
                name: (*shape[: axes[name]], each[name] * samples, *shape[axes[name] + 1 :])
                for name, shape in shapes.items()
            }

        starts = range(0, count, grain)
        drawn = [self.drawn(at, of(min(grain, count - start))) for at, start in enumerate(starts, number)]
        whole = {name: np.concatenate([own[name] for own in drawn], axis) for name, axis in axes.items()}
        done = 0
        for part in parts:
            yield {
                name: array.take(range(done * each[name], (done + part.count) * each[name]), axes[name])
                for name, array in whole.items()
            }
            done += part.count


class Feeder:
    """What runs at once of `data`, at most `run` samples (None: whole batches).

    `grain` is the number of samples that noise is drawn for, where batches are several of those given.
    """

    def __init__(self, data: Data, noise: NoiseSource, run: int | None, grain: int | None = None) -> None:
        self._data, self._noise, self._grain = data, noise, grain or data.batch_size
        run, most = run or data.batch_size, min(data.batch_size, data.count)
        differs = min(run, self._grain) < most
        self._axes = noise.axes(data) if differs else None
        self._run = self._grain if self._axes is None else min(run, data.batch_size)

    def portions(self, number: int, batch: Batch) -> Iterator[tuple[int, Batch, dict[str, Array]]]:
        """What runs at once of batch `number`: a number among all portions, samples, and their noise."""
        parts = list(self._data.split(batch, self._run))
        first = number * -(-self._data.batch_size // self._run)
        noises: Iterator[dict[str, Array]]
        if self._axes is None:
            noises = (self._noise.draw(place, part.feeds) for place, part in enumerate(parts, first))
        else:
            begin = number * (self._data.batch_size // self._grain)
            noises = self._noise.split(begin, self._grain, parts, self._axes)
        for place, (part, noise) in enumerate(zip(parts, noises, strict=True), first):
            yield place, part, noise
