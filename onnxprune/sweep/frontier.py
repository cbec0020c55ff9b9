"""A moving frontier: the calibration samples' values at a cut of a network, pushed forward piece by piece.

The sweep needs the dense and the pruned network's values at every layer, but never all at once. A `Frontier`
holds only the values that cross the cut between what has run and what has not; `advance` runs the subgraph up
to the values wanted next, on every batch. A walk over the whole graph costs one forward pass and holds one
cut's activations, in memory up to a limit and in files beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Data
from onnxprune.reading import ancestors, read_by
from onnxprune.session import Provider, Session
from onnxprune.spilling import Folder, Spilled

Array = npt.NDArray[Any]


HELD = 1 << 28


class Frontier:
    """The values of `graph` for all batches at a cut that `advance` moves forward.

    `model` may have its initializers changed between calls, as long as the nodes that read them have not run.
    """

    def __init__(
        self,
        model: ir.Model,
        data: Data,
        provider: Provider,
        held: int = HELD,
        part: int | None = None,
    ) -> None:
        """Read all data.

        Args:
            model: the graph.
            data: what it is run on.
            provider: where.
            held: bytes of values that stay in memory; the others go to files.
            part: samples of a batch that run at once, all of them if None.
        """
        self._model, self._provider = model, provider
        self._done: set[ir.Node] = set()
        self._store = _Store(held)
        self._readers: dict[ir.Value, set[ir.Node]] = {}
        for node in model.graph:
            for value in read_by(node):
                self._readers.setdefault(value, set()).add(node)
        self.batch_of: list[int] = []  # by part
        for number, batch in enumerate(data.batches()):
            for each in data.split(batch, part or batch.count):
                for value in model.graph.inputs:
                    self._store.put(value, len(self.batch_of), each.feeds[value.name or ""])
                self.batch_of.append(number)

    def advance(self, wanted: Sequence[ir.Value]) -> None:
        """Run every batch forward until `wanted` are at hand; forget what nothing ahead reads."""
        ahead = ancestors(wanted, self._done)
        if ahead:
            self._run(ahead, wanted)
            self._done |= ahead
        kept = set(wanted)
        for value in self._store.values():
            if value not in kept and self._readers.get(value, set()) <= self._done:
                self._store.drop(value)

    def get(self, value: ir.Value, part: int) -> Array:
        """The array of `value` for one part of a batch; constants of the model as they are."""
        if value.const_value is not None:
            return value.const_value.numpy()
        return self._store.get(value, part)

    def _run(self, ahead: set[ir.Node], wanted: Sequence[ir.Value]) -> None:
        behind = {value for node in ahead for value in read_by(node) if value.producer() not in ahead}
        inputs = [value for value in behind if not value.is_initializer() or value.is_graph_input()]
        inputs = [value for value in inputs if self._store.has(value)]
        made = [value for node in ahead for value in node.outputs]
        outputs = [v for v in made if v in wanted or not self._readers.get(v, set()) <= self._done | ahead]
        outputs = [v for v in outputs if v in wanted or self._readers.get(v)]
        piece = ir.convenience.extract(self._model.graph, inputs, outputs)
        for given, value in zip(piece.inputs, inputs, strict=True):
            if given.dtype is None:  # behind a custom op; onnxruntime wants to know, and the arrays do
                given.dtype = ir.DataType.from_numpy(self._store.get(value, 0).dtype)
        whole = ir.Model(piece, ir_version=self._model.ir_version)
        session = Session(whole, self._provider, lean=True)  # it runs a few times
        names = [value.name or "" for value in outputs]
        for part in range(len(self.batch_of)):
            feeds = {value.name or "": self._store.get(value, part) for value in inputs}
            results = session.run(feeds, names)
            for value in outputs:
                self._store.put(value, part, results[value.name or ""])


class _Store:
    """Arrays by value and part; past `memory` bytes new ones go to files."""

    def __init__(self, memory: int) -> None:
        self._arrays: dict[ir.Value, dict[int, Array | Spilled]] = {}
        self._memory = memory
        self._held = 0  # bytes of the arrays in memory
        self._folder = Folder("frontier")

    def values(self) -> list[ir.Value]:
        return list(self._arrays)

    def has(self, value: ir.Value) -> bool:
        return value in self._arrays

    def get(self, value: ir.Value, part: int) -> Array:
        stored = self._arrays[value][part]
        return stored.array() if isinstance(stored, Spilled) else stored

    def put(self, value: ir.Value, part: int, array: Array) -> None:
        arrays = self._arrays.setdefault(value, {})
        if part in arrays:
            self._forget(arrays.pop(part))
        fits = not array.size or not array.ndim or self._held + array.nbytes <= self._memory
        arrays[part] = array if fits else self._folder.put(array)
        self._held += array.nbytes if fits else 0

    def drop(self, value: ir.Value) -> None:
        for stored in self._arrays.pop(value).values():
            self._forget(stored)

    def _forget(self, stored: Array | Spilled) -> None:
        if isinstance(stored, Spilled):
            stored.drop()
        else:
            self._held -= stored.nbytes
