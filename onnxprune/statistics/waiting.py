"""Sums that wait: where a batch has fewer rows than they are wide, several batches are summed at once.

A gram of d columns costs d² numbers to write and to add, however few rows it is of. So the graph of the batch
gives what the sums are made of, and a small graph of their own makes them of a group of batches. Groups
follow from the batches' numbers alone: sums are in float32, and round by the group that they are made of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.session import Provider, Session

Array = npt.NDArray[Any]
Sums = Mapping[str, ir.Value]

_GIVEN = "given"


@dataclass(frozen=True)
class Waiting:
    """A graph from what batches give to sums; that of so many `batches` in a row is joined along `axis`."""

    model: ir.Model
    axis: int
    batches: int


def postponed(
    like: ir.Value, graph: ir.Graph, axis: int, batches: int, make: Callable[[Emitter, ir.Value], Sums]
) -> Waiting:
    """The sums that `make` emits, by their names, from a value like `like` of `graph`."""
    shape = None if like.shape is None else [None if at == axis else n for at, n in enumerate(like.shape)]
    given = ir.Value(
        name=_GIVEN,
        type=ir.TensorType(like.dtype or ir.DataType.FLOAT),
        shape=None if shape is None else ir.Shape(shape),
    )
    own = ir.Graph([given], [], nodes=[], opset_imports=dict(graph.opset_imports), name="sums")
    for name, value in make(Emitter(own, "sums"), given).items():
        value.name = name
        own.outputs.append(value)
    return Waiting(ir.Model(own, ir_version=10), axis, batches)


@dataclass
class Queue:
    """What waits for one `Waiting`; `session` runs its graph."""

    waiting: Waiting
    session: Session
    _groups: defaultdict[int, dict[int, Array]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def of(cls, waiting: Waiting, provider: Provider, threads: int = 0, lean: bool = False) -> Queue:
        """An empty one; `threads` and `lean` are its session's."""
        return cls(waiting, Session(waiting.model, provider, threads=threads, lean=lean))

    def add(self, number: int, part: Array) -> dict[str, Array]:
        """The sums of the group of batch `number`, if it is whole now; batches come in any order."""
        place = number // self.waiting.batches
        self._groups[place][number] = part
        whole = len(self._groups[place]) == self.waiting.batches
        return self._sums(self._groups.pop(place)) if whole else {}

    def flush(self) -> Iterator[dict[str, Array]]:
        """The sums of what waits, group by group."""
        while self._groups:
            yield self._sums(self._groups.pop(min(self._groups)))

    def waits(self) -> dict[int, Array]:
        """What waits, by the number of its batch."""
        return {number: part for group in self._groups.values() for number, part in group.items()}

    def _sums(self, group: Mapping[int, Array]) -> dict[str, Array]:
        parts = [group[number] for number in sorted(group)]
        return self.session.run({_GIVEN: np.concatenate(parts, axis=self.waiting.axis)})
