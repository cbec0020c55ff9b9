"""Dead units: what pruned weights leave behind that the outputs of the model cannot tell from nothing.

A unit is dead if every weight that reads it is zero, or makes another dead unit, or reads a constant that can
be folded exactly into the bias behind it. That covers both ends: a unit with no outgoing weights, and one
without incoming weights, which is the constant φ(bias). Liveness is the usual backward analysis: units that
the outside sees (frozen ones) are alive, and so is whatever a living unit reads; the rest is dead together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.model import Note
from onnxprune.passes.bias import add_to_bias
from onnxprune.passes.constants import Constants, foldable
from onnxprune.passes.remove_units import remove_units
from onnxprune.units import Groups, same_units, unit_groups
from onnxprune.units.ties import constant, is_constant

Mask = npt.NDArray[np.bool_]


class Liveness:
    """The dead classes of a graph, bool[classes] in `dead`, with `masks` (True = kept) on the weights."""

    def __init__(self, model: ir.Model, masks: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        self.groups: Groups = unit_groups(model.graph)
        self.constants = Constants(model.graph, self.groups, model.opset_imports[""], masks)
        self._alive = np.zeros(self.groups.count, dtype=bool)
        self._alive[list(self.groups.frozen)] = True
        self.spared: set[int] = set()  # dead, but the last of some axis
        self._sparing_order = sorted(reversed(self.groups.sections), key=lambda s: s.role != "produced")
        self._spread()
        while (last := self._last_of_emptied()) is not None:
            self.spared.add(last)
            self._alive[last] = True
            self._spread()
        self.dead: Mask = ~self._alive

    def _spread(self) -> None:
        """Mark alive what living units read, until nothing changes."""
        changed = True
        while changed:
            before = self._alive.sum()
            for contraction in reversed(self.groups.contractions):
                if contraction.node not in self.constants.linear:
                    self._spread_product(contraction.first, contraction.second)
            for node in reversed(self.constants.linear):
                self._spread_linear(node)
            changed = bool(self._alive.sum() > before)

    def _spread_linear(self, node: ir.Node) -> None:
        layer, labels = self.constants.linear[node], self.groups.labels
        candidates = ~self._alive[labels[layer.x]] & ~foldable(layer, self.constants.of[layer.x])
        if candidates.any():
            read = (layer.nonzero & self._alive[labels[layer.y]][:, :, None]).any(axis=1)
            self._alive[labels[layer.x[read & candidates]]] = True

    def _spread_product(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> None:
        """Two computed operands: a product counts unless one factor is always zero."""
        numbers, labels = self.constants.of, self.groups.labels
        read = (numbers[first] != 0) & (numbers[second] != 0)
        self._alive[labels[first[read]]] = True

    def _last_of_emptied(self) -> int | None:
        """One class of an axis that would lose all its indices: what it reads comes alive with it.

        What weights make comes first, late layers first: then few others still need one of their own.
        """
        labels = self.groups.labels
        for section in self._sparing_order:
            if section.size and not self._alive[labels[section.start : section.start + section.size]].any():
                return int(labels[section.start])
        return None


def dead_mask(model: ir.Model, masks: Mapping[str, npt.NDArray[Any]]) -> dict[str, Mask]:
    """The entries that `remove_dead_units` would delete, were `masks` applied: spend the budget elsewhere.

    Args:
        model: normalised; not changed.
        masks: initializer name → bool of its shape, True = kept. Names that are no initializers are ignored.

    Returns:
        name → bool of its shape, True = deleted, for every float initializer of the graph. Where a grouped
        Conv shrinks to one channel a group, `remove_dead_units` may find more in its next round.
    """
    liveness = Liveness(model, masks)
    deleted: dict[str, Mask] = {}
    for (value, _), axes in liveness.groups.values():
        if value.name is None or not is_constant(value) or not _is_float(value):
            continue
        mask = np.zeros([len(slots) for slots in axes if slots is not None], dtype=bool)
        for axis, slots in enumerate(axes):
            if slots is not None:
                dead = liveness.dead[liveness.groups.labels[slots]]
                mask |= np.expand_dims(dead, [k for k in range(mask.ndim) if k != axis])
        # a vector that several nodes share loses what all of them lose
        deleted[value.name] = mask & deleted.get(value.name, mask)
    return deleted


def _is_float(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.dtype.is_floating_point()


@dataclass
class DeadUnits:
    """`removed` units and `parameters` went; `kept` says which look dead but had to stay, and why."""

    model: ir.Model
    removed: int = 0
    parameters: int = 0
    kept: list[Note] = field(default_factory=list)


def remove_dead_units(model: ir.Model) -> DeadUnits:
    """Fold and cut every dead unit, in place; the outputs stay equal, to rounding.

    Args:
        model: normalised, zeros in its weights.
    """
    result = DeadUnits(model)
    while (liveness := Liveness(model)).dead.any():
        _fold(liveness)
        # the same units, found again in a graph where new biases have their slots; asking once more which are
        # dead could spare another unit of an axis that is about to be emptied
        groups = unit_groups(model.graph)
        dead = same_units(liveness.groups, np.flatnonzero(liveness.dead), groups)
        result.parameters += remove_units(model, groups, dead)
        result.removed += len(dead)
    result.kept = list(_kept(liveness))
    return result


def _fold(liveness: Liveness) -> None:
    """Move what dead constants add into the biases, then zero all weights that read dead units."""
    dead_slots = liveness.dead[liveness.groups.labels]
    for layer in liveness.constants.linear.values():
        numbers = liveness.constants.of[layer.x]
        folded = layer.response(np.where(dead_slots[layer.x] & foldable(layer, numbers), numbers, 0))
        delta = np.where(dead_slots[layer.y], 0, folded)
        if delta.any():
            add_to_bias(layer, delta)
    for section in liveness.groups.sections:
        array, dead = constant(section.value), dead_slots[section.slots]
        if section.role == "consumed" and array is not None and dead.any():
            zeroed = array.copy()
            np.moveaxis(zeroed, section.axis, 0)[dead] = 0
            section.value.const_value = ir.tensor(zeroed, name=section.value.name)


def _kept(liveness: Liveness) -> Iterator[Note]:
    """Units that a linear layer does not make or does not read, and that are alive all the same."""
    groups = liveness.groups
    found: Counter[tuple[str, str]] = Counter()
    for node, layer in liveness.constants.linear.items():
        unmade = groups.labels[layer.y[~layer.nonzero.any(axis=2)]]
        unread = groups.labels[layer.x[~layer.nonzero.any(axis=1)]]
        for units, what in ((unmade, "makes"), (unread, "reads")):
            for unit in np.unique(units[~liveness.dead[units]]):
                reason = (
                    f"all weights with which it {what} this unit are zero, but {_why(liveness, int(unit))}"
                )
                found[node.name or "", reason] += 1
    for (name, reason), count in found.items():
        yield Note(name, f"{count} {'units stay' if count > 1 else 'unit stays'}: {reason}")


def _why(liveness: Liveness, unit: int) -> str:
    if unit in liveness.groups.frozen:
        return liveness.groups.frozen[unit]
    if unit in liveness.spared:
        return "an axis must keep one index"
    for node, layer in liveness.constants.linear.items():
        numbers = liveness.constants.of[layer.x]
        stuck = (liveness.groups.labels[layer.x] == unit) & ~np.isnan(numbers) & ~foldable(layer, numbers)
        if stuck.any():
            return (
                f"{node.op_type} '{node.name}' pads with zeros where the unit is a constant other than zero"
            )
    return "another layer makes or reads it too"
