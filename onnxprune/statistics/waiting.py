"""Sums that wait: where a batch has fewer rows than they are wide, several batches are summed at once.

A gram of d columns costs d² numbers to write and to add, however few rows it is of. So the graph of the batch
gives what the sums are made of, and a small graph of their own makes them when there is enough of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """A graph from what batches give to sums; it is joined along `axis`, until it is `enough` long there."""

    model: ir.Model
    axis: int
    enough: int


def postponed(
    like: ir.Value, graph: ir.Graph, axis: int, enough: int, make: Callable[[Emitter, ir.Value], Sums]
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
    return Waiting(ir.Model(own, ir_version=10), axis, enough)


@dataclass
class Queue:
    """What waits for one `Waiting`; `session` runs its graph."""

    waiting: Waiting
    session: Session
    _parts: list[Array] = field(default_factory=list)
    _length: int = 0  # of all parts together, counted as they come

    @classmethod
    def of(cls, waiting: Waiting, provider: Provider, lean: bool = False) -> Queue:
        """An empty one; `lean` is for its session."""
        return cls(waiting, Session(waiting.model, provider, lean=lean))

    def add(self, part: Array) -> dict[str, Array]:
        """The sums, if there is enough now; else nothing."""
        self._parts.append(part)
        self._length += part.shape[self.waiting.axis]
        return self.flush() if self._length >= self.waiting.enough else {}

    def flush(self) -> dict[str, Array]:
        """The sums of what waits, if anything does."""
        if not self._parts:
            return {}
        joined = np.concatenate(self._parts, axis=self.waiting.axis)
        self._parts, self._length = [], 0
        return self.session.run({_GIVEN: joined})
