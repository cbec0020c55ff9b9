"""Joining: union-find over the slots that the rules tie.

Every axis of every value gets slots, every rule's ties join some, and the connected components are the
classes of `Groups`. What the outside sees, a subgraph captures or no rule mentions is held: its class is
frozen.

A constant with at most one axis longer than 1 (bias, norm parameter, scale) is a value of its own at every
use, since a copy is cheap: layers that happen to share a zero bias are not tied by it. A larger shared
constant is one value, and ties whatever uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.options import Heads
from onnxprune.units.folding import Folding
from onnxprune.units.groups import Contraction, Groups, Role, Section, Use
from onnxprune.units.rules import APPROXIMATE, RULES
from onnxprune.units.ties import Axes, Rule, Slots, Ties, is_constant


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


_LONGEST = 2**19  # indices of what is computed: no vocabulary is longer, and time or samples are no units


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
        if shape is None or (value.const_value is not None and 0 in shape):  # however long its other axes
            return
        axes: Axes = []
        for axis, dim in enumerate(shape):
            countable = value.const_value is not None or (isinstance(dim, int) and 0 <= dim <= _LONGEST)
            size = dim if isinstance(dim, int) and countable else None
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
                    reader = use.node.name or use.node.op_type
                    self._hold(axes, f"'{value.name}' is read inside a subgraph by '{reader}'")
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
