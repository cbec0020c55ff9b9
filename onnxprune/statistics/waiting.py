"""Sums that wait: where a batch has fewer rows than they are wide, several batches are summed at once.

A gram of d columns costs d² numbers to write and to add, however few rows it is of. So the graph of the batch
gives what the sums are made of, and the sums are made of a group of batches. Groups follow from the batches'
numbers alone: sums are in float32, and round by the group that they are made of.

What is given are rows, or a small graph makes rows of it, or that graph makes the sums themselves. The square
of rows is numpy's product: BLAS knows that Xᵀ X is symmetric and does half of it, onnxruntime does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.session import Provider, Session
from onnxprune.threads import side_by_side

Array = npt.NDArray[Any]
Make = Callable[[Emitter, ir.Value], Mapping[str, ir.Value]]
Groups = dict[int, dict[int, Array]]

ROWS = "rows"
_GIVEN = "given"


@dataclass(frozen=True)
class Waiting:
    """What becomes of what so many `batches` in a row give, joined along the first axis.

    `model` makes the sums of it, or ROWS [groups, width, rows] where these are `squared`; without a model it
    is rows [rows, width] itself. `squared` names the sum of x xᵀ over the rows and, if wanted, that of x.
    """

    model: ir.Model | None
    batches: int
    width: int
    squared: tuple[str, ...] = ()


def apart(like: ir.Value, graph: ir.Graph, make: Make) -> ir.Model:
    """The graph of what `make` emits, by name, from more samples of a value like `like` of `graph`."""
    given = ir.Value(
        name=_GIVEN,
        type=ir.TensorType(like.dtype or ir.DataType.FLOAT),
        shape=None if like.shape is None else ir.Shape([None, *like.shape[1:]]),
    )
    own = ir.Graph([given], [], nodes=[], opset_imports=dict(graph.opset_imports), name="sums")
    for name, value in make(Emitter(own, "sums"), given).items():
        value.name = name
        own.outputs.append(value)
    return ir.Model(own, ir_version=10)


@dataclass
class Queue:
    """What waits for one `Waiting`; `session` runs its graph, if it has one."""

    waiting: Waiting
    session: Session | None
    groups: Groups = field(default_factory=lambda: defaultdict(dict))

    def whole(self, number: int, part: Array) -> list[Array] | None:
        """Take what batch `number` gives; the parts of its group, if there are all of them now."""
        place = number // self.waiting.batches
        self.groups[place][number] = part
        return self.next(place) if len(self.groups[place]) == self.waiting.batches else None

    def next(self, place: int) -> list[Array]:
        """The parts of a group, in order, which wait no longer."""
        group = self.groups.pop(place)
        return [group[number] for number in sorted(group)]

    def run(self, parts: Sequence[Array]) -> dict[str, Array]:
        """The sums of a group, or the rows that they are squares of."""
        given = np.concatenate(parts)
        return {ROWS: given.T[None]} if self.session is None else self.session.run({_GIVEN: given})


class Queues:
    """All that waits, by the name of the output that gives it; batches come in any order."""

    def __init__(
        self, waiting: Mapping[str, Waiting], provider: Provider, threads: int = 0, lean: bool = False
    ) -> None:
        """`threads` and `lean` are the sessions'."""
        opened = partial(Session, provider=provider, threads=threads, lean=lean)
        self._queues = {
            name: Queue(each, None if each.model is None else opened(each.model))
            for name, each in waiting.items()
        }

    def add(self, number: int, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of batch `number`, with the sums of its group, if it is whole now, for what waits."""
        left = {name: array for name, array in outputs.items() if name not in self._queues}
        given = ((queue, outputs[name]) for name, queue in self._queues.items() if name in outputs)
        ready = [(queue, parts) for queue, part in given if (parts := queue.whole(number, part)) is not None]
        return left | _sums(ready)

    def flush(self) -> Iterator[dict[str, Array]]:
        """The sums of what waits, a group of each at a time."""
        while left := [queue for queue in self._queues.values() if queue.groups]:
            yield _sums([(queue, queue.next(min(queue.groups))) for queue in left])

    def waits(self) -> dict[str, dict[int, Array]]:
        """What waits, by name and by the number of its batch."""
        return {
            name: {number: part for group in queue.groups.values() for number, part in group.items()}
            for name, queue in self._queues.items()
        }


def _sums(ready: Sequence[tuple[Queue, Sequence[Array]]]) -> dict[str, Array]:
    """The sums of groups: graphs in turn, for they have threads of their own, squares side by side."""
    made: dict[str, Array] = {}
    for queue, parts in ready:
        if not queue.waiting.squared:
            made |= queue.run(parts)
    squared = [(queue, parts) for queue, parts in ready if queue.waiting.squared]
    calls = ((queue.waiting.squared, queue.run(parts)[ROWS]) for queue, parts in squared)
    for sums in side_by_side(_squared, calls, [queue.waiting.width for queue, _ in squared]):
        made |= sums
    return made


def _squared(names: Sequence[str], rows: Array) -> dict[str, Array]:
    square, *total = names
    with np.errstate(over="ignore", invalid="ignore"):  # said by name where statistics are put together
        return {square: rows @ rows.transpose(0, 2, 1)} | {name: rows.sum(axis=2) for name in total}
