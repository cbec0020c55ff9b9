"""Dead units: what pruned weights leave behind that the outputs of the model cannot tell from nothing.

A unit is dead if every weight that reads it is zero, or makes another dead unit, or reads a constant that can
be folded exactly into the bias behind it. That covers both ends: a unit with no outgoing weights, and one with
no incoming weights, which is the constant φ(bias). Liveness is the usual backward analysis: units that the
outside sees (frozen ones) are alive, and so is whatever a living unit reads; the rest is dead together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.passes.constants import Constants, foldable
from onnxprune.units import Groups, unit_groups
from onnxprune.units.ties import constant

Mask = npt.NDArray[np.bool_]


class Liveness:
    """The dead classes of a graph, bool[classes] in `dead`, with `masks` (True = kept) on the weights."""

    def __init__(self, model: ir.Model, masks: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        self.groups: Groups = unit_groups(model.graph)
        self.constants = Constants(model.graph, self.groups, model.opset_imports[""], masks)
        self._alive = np.zeros(self.groups.count, dtype=bool)
        self._alive[list(self.groups.frozen)] = True
        self.spared: set[int] = set()  # dead, but the last of some axis
        self._spread()
        while len(last := self._emptied()):
            self.spared.update(last)
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
        needed = ~foldable(layer, self.constants.of[layer.x])
        read = (layer.nonzero & self._alive[labels[layer.y]][:, :, None]).any(axis=1)
        self._alive[labels[layer.x[read & needed]]] = True

    def _spread_product(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> None:
        """Two computed operands: a product counts unless one factor is always zero."""
        numbers, labels = self.constants.of, self.groups.labels
        read = (numbers[first] != 0) & (numbers[second] != 0)
        self._alive[labels[first[read]]] = True

    def _emptied(self) -> list[int]:
        """One class of every axis that would lose all its indices."""
        labels = self.groups.labels
        dead = [section for section in self.groups.sections if section.size]
        return sorted({int(labels[s.start]) for s in dead if not self._alive[labels[s.slots]].any()})


def dead_mask(model: ir.Model, masks: Mapping[str, npt.NDArray[Any]]) -> dict[str, Mask]:
    """The entries that `remove_dead_units` would delete, were `masks` applied: spend the budget elsewhere.

    Args:
        model: normalised; not changed.
        masks: initializer name → bool of its shape, True = kept. Names that are no initializers are ignored.

    Returns:
        name → bool of its shape, True = deleted, for every float initializer of the graph.
    """
    liveness = Liveness(model, masks)
    deleted: dict[str, Mask] = {}
    for (value, _), axes in liveness.groups.values():
        array = constant(value)
        if array is None or value.name is None or value.dtype is None or not value.dtype.is_floating_point():
            continue
        mask = np.zeros(array.shape, dtype=bool)
        for axis, slots in enumerate(axes):
            if slots is not None:
                dead = liveness.dead[liveness.groups.labels[slots]]
                mask |= np.expand_dims(dead, [k for k in range(array.ndim) if k != axis])
        # a vector that several nodes share loses what all of them lose
        deleted[value.name] = mask & deleted.get(value.name, mask)
    return deleted
