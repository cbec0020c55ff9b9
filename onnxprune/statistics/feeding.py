"""Feeding: the noise of every batch, and batches that run in portions.

The noise of a batch is drawn for the whole batch, whatever part of it runs at once: what is sampled does not
depend on how much memory there is.
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

_FEW = 4  # shapes, for each of which a session may be opened anew: it holds the weights


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
        self, number: int, parts: Sequence[Batch], axes: Mapping[str, int]
    ) -> Iterator[dict[str, Array]]:
        """The noise of batch `number`, part by part; samples lie along the `axes` of the noise."""
        first, count = parts[0], sum(part.count for part in parts)
        shapes = self.shapes(first.feeds)
        each = {name: shape[axes[name]] // first.count for name, shape in shapes.items()}
        whole = {
            name: (*shape[: axes[name]], each[name] * count, *shape[axes[name] + 1 :])
            for name, shape in shapes.items()
        }
        drawn, done = self.drawn(number, whole), 0
        for part in parts:
            yield {
                name: array.take(range(done * each[name], (done + part.count) * each[name]), axes[name])
                for name, array in drawn.items()
            }
            done += part.count


class Feeder:
    """Cuts batches of `data` into portions of at most `run` samples; None: they stay whole."""

    def __init__(self, data: Data, noise: NoiseSource, run: int | None) -> None:
        self._data, self._noise = data, noise
        several = run is not None and run < min(data.batch_size, data.count)
        self._axes = noise.axes(data) if several else None
        self._run = data.batch_size if self._axes is None or run is None else run

    def portions(self, number: int, batch: Batch) -> Iterator[tuple[int, Batch, dict[str, Array]]]:
        """What runs at once of batch `number`: a number among all portions, samples, and their noise."""
        first = number * -(-self._data.batch_size // self._run)
        if self._axes is None or batch.count <= self._run:
            yield first, batch, self._noise.draw(number, batch.feeds)
            return
        parts = list(self._data.split(batch, self._run))
        noises = self._noise.split(number, parts, self._axes)
        for place, (part, noise) in enumerate(zip(parts, noises, strict=True), first):
            yield place, part, noise
