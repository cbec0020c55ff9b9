"""Feeding: the noise of every batch, and batches that run in portions.

The noise of a batch is drawn for the whole batch, whatever part of it runs at once: what is sampled does not
depend on how much memory there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Batch, Data
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
        first, second = self.shapes(one.feeds), self.shapes(two.feeds)
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


def portions(
    data: Data, noise: NoiseSource, run: int | None = None
) -> Iterator[tuple[Batch, dict[str, Array]]]:
    """What runs at once, and its noise.

    Args:
        data: the samples.
        noise: drawn for whole batches.
        run: samples at once, a divisor of the batch size for data whose noise has known `axes`; None: whole
            batches.
    """
    axes = noise.axes(data) if run is not None and run < data.batch_size else None
    if run is None or axes is None:
        for number, batch in enumerate(data.batches()):
            yield batch, noise.draw(number, batch.feeds)
        return
    pieces = replace(data, batch_size=run).batches()
    for number, size in enumerate(_sizes(data)):
        drawn: dict[str, Array] = {}
        done = 0
        while done < size:
            piece = next(pieces)
            each = {
                name: shape[axes[name]] // piece.count for name, shape in noise.shapes(piece.feeds).items()
            }
            if not done:
                shapes = {
                    name: (*shape[: axes[name]], each[name] * size, *shape[axes[name] + 1 :])
                    for name, shape in noise.shapes(piece.feeds).items()
                }
                drawn = noise.drawn(number, shapes)
            own = {
                name: array.take(range(done * each[name], (done + piece.count) * each[name]), axes[name])
                for name, array in drawn.items()
            }
            yield piece, own
            done += piece.count


def _sizes(data: Data) -> Iterator[int]:
    """Samples of every batch."""
    for part in data.parts:
        for start in range(0, len(part.rows), data.batch_size):
            yield min(data.batch_size, len(part.rows) - start)
