"""Groups: which indices of which axes form one unit (found by `joining`).

Every axis of every value has a `Section` of slots, one integer per index, numbered through the whole graph.
The classes of slots that are tied are numbered from 0. A class is a *unit*, which may be cut out of the
network as a whole, unless it is frozen; then `frozen` has the reason.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.units.ties import Axes, Slots

Role = Literal["produced", "carried", "consumed"]
Use = tuple[ir.Node, int]


@dataclass(frozen=True, eq=False)
class Section:
    """One axis of one value: `size` slots from `start`. `use` tells the copies of a shared vector apart.

    `role` is *consumed* for the input axis of a weight, *produced* for every other axis of a constant (output
    axis of a weight, bias, norm parameter), *carried* for what is computed.
    """

    value: ir.Value
    axis: int
    start: int
    size: int
    role: Role
    use: Use | None = None

    @property
    def slots(self) -> Slots:
        """int64[size]."""
        return np.arange(self.start, self.start + self.size)


@dataclass(frozen=True, eq=False)
class Member:
    """The indices of one section that belong to one unit; for a consumed section, the channels it feeds."""

    section: Section
    indices: Slots


@dataclass(frozen=True, eq=False)
class Contraction:
    """`node` sums products over these slots of its first and second operand, int64[k] each."""

    node: ir.Node
    first: Slots
    second: Slots


class Groups:
    """The classes of a graph. `labels` is int64[slots], the class of every slot; `frozen` class → reason."""

    def __init__(
        self,
        sections: list[Section],
        axes: Mapping[tuple[ir.Value, Use | None], Axes],
        labels: Slots,
        frozen: dict[int, str],
        ties: dict[ir.Node, tuple[Slots, Slots]],
        contractions: list[Contraction],
    ) -> None:
        self.sections = sections
        self.labels = labels
        self.frozen = frozen
        self.contractions = contractions
        self._axes = axes
        self._ties = ties

    @property
    def count(self) -> int:
        """How many classes there are, frozen ones included."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def units(self) -> Slots:
        """int64[n]: the classes that may be cut."""
        return np.array([label for label in range(self.count) if label not in self.frozen], dtype=np.int64)

    def members(self, unit: int) -> list[Member]:
        """All that is cut with `unit`."""
        of_unit = np.flatnonzero(self.labels == unit)
        found = []
        for section in self.sections:
            bounds = np.searchsorted(of_unit, [section.start, section.start + section.size])
            if bounds[0] < bounds[1]:
                found.append(Member(section, of_unit[bounds[0] : bounds[1]] - section.start))
        return found

    def values(self) -> ItemsView[tuple[ir.Value, Use | None], Axes]:
        """Slots per axis of every value with a known shape, of each copy of a shared vector."""
        return self._axes.items()

    def axes(self, value: ir.Value | None, node: ir.Node | None = None, index: int = 0) -> Axes | None:
        """Slots per axis of `value`, for constants as input `index` of `node`; None without a known shape."""
        if value is None:
            return None
        use = (node, index) if node is not None else None
        return self._axes.get((value, use), self._axes.get((value, None)))

    def inputs(self, node: ir.Node) -> list[Axes | None]:
        """Slots per axis, for each input of `node`; None for an omitted one."""
        return [self.axes(value, node, index) for index, value in enumerate(node.inputs)]

    def outputs(self, node: ir.Node) -> list[Axes | None]:
        """Slots per axis, for each output of `node`."""
        return [self.axes(value) for value in node.outputs]

    def moves(self, node: ir.Node) -> tuple[Slots, Slots]:
        """Ties of `node` from slots of its inputs to slots of its outputs, int64[k] each."""
        empty = np.empty(0, dtype=np.int64)
        return self._ties.get(node, (empty, empty))


def same_units(before: Groups, units: Slots, after: Groups) -> Slots:
    """The classes of `after` that hold a slot of `units` of `before`, int64[n].

    Args:
        before: groups of a graph.
        units: classes of it.
        after: groups of the same graph, or of a copy, that since got nodes or constants of its own.
    """
    chosen = np.zeros(before.count, dtype=bool)
    chosen[units] = True
    known = {_place(section): chosen[before.labels[section.slots]] for section in before.sections}
    same = [
        after.labels[section.slots][known[_place(section)]]
        for section in after.sections
        if _place(section) in known
    ]
    return np.unique(np.concatenate(same)) if same else np.empty(0, dtype=np.int64)


def _place(section: Section) -> tuple[str | None, int, tuple[str | None, int] | None]:
    use = None if section.use is None else (section.use[0].name, section.use[1])
    return section.value.name, section.axis, use
