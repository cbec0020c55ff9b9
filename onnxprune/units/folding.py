"""Which factor of a folded axis is cut: heads or the dimensions of each, groups or the channels of each.

A Reshape makes an axis of several factors, or several axes of one. Such an axis can lose indices of one of
its factors only: of heads × dimensions either heads or dimensions. A `Fold` says that an axis before and an
axis after have a factor in common; of all folds of one axis at most one is taken, and its slots are tied.

Folds without an alternative are taken first, since they decide what is free elsewhere. Then come those of
parallel axes, over which a product of two computed tensors runs batch by batch (heads), then those that
leave the most units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.units.ties import Fold, Slots

Mask = npt.NDArray[np.bool_]
_Axis = tuple[ir.Node, int]  # one side of a node, by the first slot of the axis
Hold = Callable[[Slots, str], None]


class Folding:
    """Decides over `folds`, given the class of every slot, and which classes are frozen and which parallel.

    `taken` are those whose slots are to be tied; `hold` is told of each axis that has to stay, and why.
    """

    def __init__(
        self,
        folds: Sequence[tuple[ir.Node, Fold]],
        labels: Slots,
        frozen: Mask,
        parallel: Mask,
        hold: Hold,
    ) -> None:
        self.taken: list[tuple[ir.Node, Fold]] = []
        self._open = {fold: node for node, fold in folds}
        self._labels, self._frozen, self._parallel, self._hold = labels, frozen, parallel, hold
        self._class = np.arange(len(frozen))  # of every label, after the folds taken so far
        self._known: dict[Fold, tuple[int, int]] = {}  # units of each fold, and when they were counted
        self._clock = 0
        self._changed = np.zeros(len(frozen), dtype=np.int64)  # when each class last did
        self._ways = Counter(axis for fold in self._open for axis in self._axes(fold))
        self._done: set[_Axis] = set()  # with a fold that is taken

    def decide(self) -> None:
        """Take or leave every fold."""
        while self._open:
            self._settle()
            if self._open:
                self._take(self._best())

    def _settle(self) -> None:
        """Leave what gives no unit, take what has no alternative, until nothing changes."""
        changed = True
        while changed:
            changed = False
            for fold in list(self._open):
                if fold not in self._open:
                    continue
                if not self._count(fold):
                    self._leave(fold, "folds axes that cannot be cut")
                elif all(self._ways[axis] == 1 for axis in self._axes(fold)):
                    self._take(fold)
                else:
                    continue
                changed = True

    def _best(self) -> Fold:
        parallel = [fold for fold in self._open if self._parallel[self._classes(fold)].any()]
        if parallel:
            return parallel[0]
        first = next(iter(self._open.values()))
        return max((fold for fold, node in self._open.items() if node is first), key=self._count)

    def _take(self, fold: Fold) -> None:
        axes = self._axes(fold)
        self.taken.append((self._open.pop(fold), fold))
        classes, component = self._joined(fold)
        first = np.full(component.max() + 1, len(self._class))
        np.minimum.at(first, component, classes)
        merged = np.arange(len(self._class))
        merged[classes] = first[component]
        for flags in (self._frozen, self._parallel):
            flags[first[component[flags[classes]]]] = True
        self._class = merged[self._class]
        self._touch(first)
        self._done.update(axes)
        for other in [other for other in self._open if set(self._axes(other)) & set(axes)]:
            self._leave(other, "folds this axis with others into one")

    def _leave(self, fold: Fold, reason: str) -> None:
        axes, node = self._axes(fold), self._open.pop(fold)
        for axis, slots in zip(axes, (fold.before, fold.after), strict=True):
            self._ways[axis] -= 1
            if not self._ways[axis] and axis not in self._done:
                self._hold(slots.ravel(), f"{node.op_type} '{node.name}' {reason}")
                classes = self._class[self._labels[slots.ravel()]]
                self._frozen[classes] = True
                self._touch(classes)

    def _axes(self, fold: Fold) -> tuple[_Axis, _Axis]:
        node = self._open[fold]
        return (node, int(fold.before.min())), (node, int(fold.after.min()))

    def _touch(self, classes: Slots) -> None:
        self._clock += 1
        self._changed[classes] = self._clock

    def _classes(self, fold: Fold) -> Slots:
        """The class of every slot, [size, rest] of both axes side by side."""
        slots = np.concatenate([fold.before, fold.after], axis=1)
        return np.asarray(self._class[self._labels[slots]])

    def _joined(self, fold: Fold) -> tuple[Slots, Slots]:
        """The classes that meet in a fold, and for each the number of the component it would be in."""
        rows = self._classes(fold)
        classes, place = np.unique(rows, return_inverse=True)
        row = np.repeat(np.arange(len(rows)), rows.shape[1])
        size = len(rows) + len(classes)
        ties = coo_array((np.ones(rows.size, dtype=bool), (row, len(rows) + place.ravel())), (size, size))
        component: Slots = connected_components(ties, directed=False)[1].astype(np.int64)
        return classes, component[len(rows) :]

    def _count(self, fold: Fold) -> int:
        """How many units there would be along the axes of a fold; none if all became one."""
        units, when = self._known.get(fold, (0, -1))
        if self._changed[self._classes(fold)].max() <= when:
            return units
        classes, component = self._joined(fold)
        fixed = np.zeros(component.max() + 1, dtype=bool)
        fixed[component[self._frozen[classes]]] = True
        units = int((~fixed).sum()) if len(fixed) > 1 else 0
        self._known[fold] = units, self._clock
        return units
