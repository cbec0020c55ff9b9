"""Slots and union-find: which indices of which axes form one unit.

Every axis of every value has a `Section` of slots, one integer per index, numbered through the whole graph.
The rules tie slots; connected components of the ties are the classes, numbered from 0. A class is a *unit*,
which may be cut out of the network as a whole, unless it is frozen; then `frozen` has the reason.

A constant with at most one axis longer than 1 (bias, norm parameter, scale) is a value of its own at every
use, since a copy is cheap: layers that happen to share a zero bias are not tied by it. A larger shared
constant is one value, and ties whatever uses it.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.options import Heads
from onnxprune.units.folding import Folding
from onnxprune.units.rules import APPROXIMATE, RULES
from onnxprune.units.ties import Axes, Rule, Slots, Ties, is_constant

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


def unit_groups(graph: ir.Graph, approximate: bool = False, heads: Heads = "whole") -> Groups:
    """The units of a normalised graph.

    Args:
        graph: topologically sorted, every value named, shapes inferred. Nothing is changed.
        approximate: whether axes that a LayerNorm, RMSNorm or GroupNorm goes over may be cut as well. Its
            statistics are then those of fewer indices: removing is no longer the same as silencing.
        heads: of the heads of an attention *whole* ones are cut, or each is made *narrow* by the same
            dimensions.
    """
    return _Builder(graph, {**RULES, **APPROXIMATE} if approximate else RULES, heads).build()


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


class _Builder:
    """Collects what the rules say, node by node, then joins it."""

    def __init__(self, graph: ir.Graph, rules: Mapping[str, Rule], heads: Heads) -> None:
        self.graph = graph
        self.heads = heads
        self.rules = rules
        self.axes: dict[tuple[ir.Value, Use | None], Axes] = {}
        self.placed: list[tuple[ir.Value, int, int, int, Use | None]] = []
        self.slots = 0
        self.pairs: list[tuple[Slots, Slots]] = []
        self.held: list[tuple[Slots, str]] = []  # frozen slots; of several reasons, the first counts
        self.ties: dict[ir.Node, Ties] = {}

    def build(self) -> Groups:
        self._place_all()
        self._hold_boundary()
        for node in self.graph:
            self._visit(node)
        if self.heads == "narrow":
            for node, ties in self.ties.items():
                self._hold(ties.parallel, f"{node.op_type} '{node.name}' runs over heads, which stay whole")
        self._fold()
        labels = self._labels()
        summed = [Contraction(node, *pair) for node, ties in self.ties.items() for pair in ties.contractions]
        return Groups(self._sections(summed), self.axes, labels, self._frozen(labels), self._moves(), summed)

    def _place_all(self) -> None:
        for value in [*self.graph.inputs, *self.graph.initializers.values()]:
            uses = [(use.node, use.idx) for use in value.uses()]
            if is_constant(value) and is_vector(value) and len(uses) > 1:
                for use in uses:
                    self._place(value, use)
            elif (value, None) not in self.axes:
                self._place(value)
        for node in self.graph:
            for value in node.outputs:
                self._place(value)

    def _place(self, value: ir.Value, use: Use | None = None) -> None:
        shape = value.const_value.shape if value.const_value is not None else value.shape
        if shape is None:
            return
        axes: Axes = []
        for axis, dim in enumerate(shape):
            size = dim if isinstance(dim, int) else None
            axes.append(None if size is None else np.arange(self.slots, self.slots + size))
            if size is not None:
                self.placed.append((value, axis, self.slots, size, use))
                self.slots += size
        self.axes[value, use] = axes

    def _hold_boundary(self) -> None:
        """Freeze what the outside sees, subgraphs capture, or holds a single index."""
        outside = [(self.graph.inputs, "an input"), (self.graph.outputs, "an output")]
        for values, kind in outside:
            for value in values:
                self._hold(self.axes.get((value, None)), f"'{value.name}' is {kind} of the model")
        for (value, _), axes in self.axes.items():
            for use in value.uses():
                if use.node.graph is not self.graph:
                    self._hold(axes, f"'{value.name}' is read inside a subgraph by '{use.node.name}'")
        for value, axis, start, size, _ in self.placed:
            if size == 1:
                self._hold([np.array([start])], f"axis {axis} of '{value.name}' has one index only")

    def _visit(self, node: ir.Node) -> None:
        who = f"{node.op_type} '{node.name}'"
        inputs = [self._axes_at(value, node, index) for index, value in enumerate(node.inputs)]
        outputs = [self.axes.get((value, None)) for value in node.outputs]
        ties = Ties(node, inputs, outputs)
        reason = self._apply(node, ties)
        if reason is not None:
            for axes in [*inputs, *outputs]:
                self._hold(axes, f"{who} {reason}")
            return
        self.ties[node] = ties
        self.pairs += ties.pairs + ties.contractions
        self._hold_unmentioned(node, ties)

    def _hold_unmentioned(self, node: ir.Node, ties: Ties) -> None:
        mentioned = np.zeros(self.slots, dtype=bool)
        for pair in ties.pairs + ties.contractions:
            mentioned[np.concatenate(pair)] = True
        for fold in ties.folds:
            mentioned[fold.before] = mentioned[fold.after] = True
        for freed in ties.freed:
            mentioned[freed] = True
        values = zip([*node.inputs, *node.outputs], [*ties.inputs, *ties.outputs], strict=True)
        for value, axes in values:
            for axis, slots in enumerate(axes or []):
                if slots is not None and value is not None:
                    rest = slots[~mentioned[slots]]
                    reason = f"{node.op_type} '{node.name}' works across axis {axis} of '{value.name}'"
                    self._hold([rest] if len(slots) > 1 else None, reason)

    def _axes_at(self, value: ir.Value | None, node: ir.Node, index: int) -> Axes | None:
        if value is None:
            return None
        return self.axes.get((value, (node, index)), self.axes.get((value, None)))

    def _apply(self, node: ir.Node, ties: Ties) -> str | None:
        unknown = [
            value.name
            for value, axes in zip([*node.inputs, *node.outputs], [*ties.inputs, *ties.outputs], strict=True)
            if axes is None and value is not None and value.name
        ]
        rule = self.rules.get(node.op_type) if node.domain == "" else None
        if rule is None:
            return "has no rule for units"
        return f"has '{unknown[0]}', whose shape is unknown" if unknown else rule(ties)

    def _fold(self) -> None:
        """Tie one factor of every folded axis; hold the axes that are left without."""
        folds = [(node, fold) for node, ties in self.ties.items() for fold in ties.folds]
        if not folds:
            return
        labels = self._labels()
        frozen, parallel = np.zeros((2, labels.max() + 1), dtype=bool)
        for slots, _ in self.held:
            frozen[labels[slots]] = True
        for slots in (slots for ties in self.ties.values() for slots in ties.parallel):
            parallel[labels[slots]] = True
        folding = Folding(folds, labels, frozen, parallel, lambda slots, why: self._hold([slots], why))
        folding.decide()
        for node, fold in folding.taken:
            self.pairs.append(fold.pair)
            self.ties[node].pairs.append(fold.pair)

    def _hold(self, axes: Sequence[Slots | None] | None, reason: str) -> None:
        self.held += [(slots, reason) for slots in axes or [] if slots is not None and len(slots)]

    def _labels(self) -> Slots:
        if not self.slots:
            return np.empty(0, dtype=np.int64)
        a, b = (np.concatenate([pair[side] for pair in self.pairs] or [np.empty(0, int)]) for side in (0, 1))
        ties = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(self.slots, self.slots))
        labels: Slots = connected_components(ties, directed=False)[1].astype(np.int64)
        return labels

    def _frozen(self, labels: Slots) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for slots, reason in self.held:
            for label in np.unique(labels[slots]):
                reasons.setdefault(int(label), reason)
        return reasons

    def _sections(self, contractions: list[Contraction]) -> list[Section]:
        summed = np.zeros(self.slots, dtype=bool)
        for contraction in contractions:
            summed[contraction.first] = summed[contraction.second] = True
        return [
            Section(value, axis, start, size, self._role(value, bool(size and summed[start])), use)
            for value, axis, start, size, use in self.placed
        ]

    def _role(self, value: ir.Value, summed: bool) -> Role:
        if not is_constant(value):
            return "carried"
        return "consumed" if summed else "produced"

    def _moves(self) -> dict[ir.Node, tuple[Slots, Slots]]:
        return {
            node: (
                np.concatenate([pair[0] for pair in ties.pairs]),
                np.concatenate([pair[1] for pair in ties.pairs]),
            )
            for node, ties in self.ties.items()
            if ties.pairs
        }


def is_vector(value: ir.Value) -> bool:
    """Whether a constant has at most one axis longer than 1."""
    shape = value.const_value.shape if value.const_value is not None else value.shape
    return shape is not None and sum(dim != 1 for dim in shape) <= 1
