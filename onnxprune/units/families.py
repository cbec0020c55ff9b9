"""Families: units of one kind, with the layers that make them and the layers that read them.

Units belong together if they occupy the same axes of the same values: the output channels of a Conv and all
that is tied to them, the dimensions of a residual stream, the heads of an attention. Layout of indices: rows
and columns are those of `Layer.matrix`, [groups, d_out, d_in], counted through all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.layers import Layer, Layers, Skipped
from onnxprune.units.groups import Groups
from onnxprune.units.linear import Linear, linear
from onnxprune.units.ties import Slots, constant

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Touch:
    """What of one layer belongs to each unit: `indices` int64[units, k], rows or columns of its matrix."""

    layer: Layer
    indices: Slots


@dataclass(frozen=True, eq=False)
class Family:
    """`units` are classes of `Groups`, int64[n]; `makers` lose rows and `readers` columns with them.

    A depthwise Conv is a maker: it has a row for each unit, and no column of any other.
    """

    name: str
    units: Slots
    makers: tuple[Touch, ...]
    readers: tuple[Touch, ...]

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.units)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All that lose rows or columns with them."""
        return tuple(dict.fromkeys(touch.layer for touch in (*self.makers, *self.readers)))


@dataclass(frozen=True, eq=False)
class Families:
    """All families of a graph, what cannot be cut with the reason, and the labels of every layer's matrix."""

    groups: Groups
    families: tuple[Family, ...]
    skipped: tuple[Skipped, ...]
    views: dict[str, tuple[Layer, Linear]]
    summing: frozenset[ir.Node]  # all linear nodes but depthwise convolutions: those that add up channels

    def masks(self, cut: Iterable[int]) -> dict[str, Array]:
        """Of every layer, the weights that stay without the classes `cut`: bool [groups, d_out, d_in]."""
        stays = self._stays(cut)
        return {
            name: (stays[self.rows(name)][:, :, None] & stays[self.columns(name)][:, None, :])
            for name in self.views
        }

    def silent(self, cut: Iterable[int]) -> dict[str, Array]:
        """Of every layer, the rows that make the classes `cut`: bool [groups, d_out]."""
        stays = self._stays(cut)
        return {name: ~stays[self.rows(name)] for name in self.views}

    def _stays(self, cut: Iterable[int]) -> Array:
        stays = np.ones(self.groups.count, dtype=bool)
        stays[np.fromiter(cut, dtype=np.int64)] = False
        return stays

    def rows(self, layer: str) -> Slots:
        """The class of every row of a layer's matrix, int64 [groups, d_out]."""
        return np.asarray(self.groups.labels[self.views[layer][1].y])

    def columns(self, layer: str) -> Slots:
        """The class of every column, int64 [groups, d_in]."""
        view, x = self.views[layer][0], self.views[layer][1].x
        return np.repeat(self.groups.labels[x], view.d_in // x.shape[1], axis=1)


def find_families(groups: Groups, layers: Layers) -> Families:
    """The families of a normalised graph.

    Args:
        groups: from `unit_groups`.
        layers: from `find_layers`, of the same graph.
    """
    finder = _Finder(groups, layers)
    return Families(groups, tuple(finder.families()), tuple(finder.skipped), finder.views, finder.summing)


class _Finder:
    def __init__(self, groups: Groups, layers: Layers) -> None:
        self.groups = groups
        self.views: dict[str, tuple[Layer, Linear]] = {}
        for layer in layers:
            view = linear(layer.uses[0].node, groups, constant)
            if view is not None:
                self.views[layer.name] = (layer, view)
        self.skipped: list[Skipped] = []
        self.summing = frozenset(contraction.node for contraction in groups.contractions)

    def families(self) -> list[Family]:
        unknown = self._read_elsewhere()
        found: list[Family] = []
        names: set[str] = set()
        for units in self._alike():
            reason = next((unknown[int(unit)] for unit in units if int(unit) in unknown), None)
            makers = tuple(self._touched(units, self._rows))
            readers = tuple(self._touched(units, self._columns))
            if not makers:
                continue
            name = makers[0].layer.name
            name = name if name not in names else f"{name}/{len(found)}"
            names.add(name)
            if reason is not None:
                self.skipped.append(Skipped(name, reason))
            else:
                found.append(Family(name, units, makers, readers))
        self._explain({int(unit) for family in found for unit in family.units})
        return found

    def _alike(self) -> list[Slots]:
        """Units that occupy the same axes as often, together; in the order of their first slots."""
        pairs = [
            np.stack([labels, np.full(len(labels), index), counts])
            for index, section in enumerate(self.groups.sections)
            if section.size
            for labels, counts in [np.unique(self.groups.labels[section.slots], return_counts=True)]
        ]
        table = np.concatenate(pairs, axis=1) if pairs else np.empty((3, 0), dtype=np.int64)
        table = table[:, np.argsort(table[0], kind="stable")]
        labels, starts = np.unique(table[0], return_index=True)
        alike: dict[bytes, list[int]] = {}
        for label, rows in zip(labels, np.split(table[1:], starts[1:], axis=1), strict=True):
            if int(label) not in self.groups.frozen:
                alike.setdefault(rows.tobytes(), []).append(int(label))
        return [np.array(units, dtype=np.int64) for units in alike.values()]

    def _touched(self, units: Slots, of: Callable[[Layer, Linear], Slots | None]) -> list[Touch]:
        touched = []
        for layer, view in self.views.values():
            labels = of(layer, view)
            if labels is None or not np.isin(units[:1], labels).any():
                continue
            order = np.argsort(labels, kind="stable")
            first = np.searchsorted(labels[order], units, side="left")
            count = int(np.searchsorted(labels[order], units[0], side="right")) - int(first[0])
            touched.append(Touch(layer, order[first[:, None] + np.arange(count)]))
        return touched

    def _rows(self, layer: Layer, view: Linear) -> Slots | None:
        return np.asarray(self.groups.labels[view.y]).ravel()

    def _columns(self, layer: Layer, view: Linear) -> Slots | None:
        if view.node not in self.summing:
            return None
        return np.repeat(self.groups.labels[view.x].ravel(), layer.d_in // view.x.shape[1])

    def _read_elsewhere(self) -> dict[int, str]:
        """Units read by a constant weight that is not a layer: nothing is known of what they give there."""
        known = {use.node for layer, _ in self.views.values() for use in layer.uses}
        unknown: dict[int, str] = {}
        for contraction in self.groups.contractions:
            node = contraction.node
            if node not in known and linear(node, self.groups, constant) is not None:
                for label in np.unique(self.groups.labels[contraction.first]):
                    unknown[int(label)] = f"read by {node.op_type} '{node.name}', which is no prunable layer"
        return unknown

    def _explain(self, cuttable: set[int]) -> None:
        """Why the outputs of each other layer stay."""
        named = {entry.name for entry in self.skipped}
        for name, (_, view) in self.views.items():
            labels = np.unique(self.groups.labels[view.y])
            if name in named or any(int(label) in cuttable for label in labels):
                continue
            reasons = [self.groups.frozen[int(label)] for label in labels if int(label) in self.groups.frozen]
            if reasons:
                self.skipped.append(Skipped(name, reasons[0]))


class Costs:
    """Multiply-accumulates by kept units: Σ over layers of T · rows · columns / groups.

    `macs(kept)` takes and `slope(kept)` gives one float a family.
    """

    def __init__(self, families: Families, positions: dict[str, float]) -> None:
        place = {layer: index for index, layer in enumerate(families.views)}
        count = len(families.families)
        self._rows, self._columns = np.zeros((2, len(place), count))
        self._all_rows, self._all_columns, self._scale = np.zeros((3, len(place)))
        for name, (layer, view) in families.views.items():
            depthwise = view.node not in families.summing
            index = place[name]
            self._all_rows[index] = layer.groups * layer.d_out
            self._all_columns[index] = layer.d_in if depthwise else layer.groups * layer.d_in
            self._scale[index] = positions[name] / (1 if depthwise else layer.groups)
        for index, family in enumerate(families.families):
            for table, touches in ((self._rows, family.makers), (self._columns, family.readers)):
                for touch in touches:
                    table[place[touch.layer.name], index] += touch.indices.shape[1]
        self.sizes = np.array([family.size for family in families.families], dtype=np.float64)

    @property
    def dense(self) -> float:
        """MACs of the whole."""
        return self.macs(self.sizes)

    def macs(self, kept: Array) -> float:
        """MACs a sample with so many units of each family kept."""
        rows, columns = self._left(kept)
        return float((self._scale * rows * columns).sum())

    def slope(self, kept: Array) -> Array:
        """What one unit more of each family adds."""
        rows, columns = self._left(kept)
        slope: Array = self._rows.T @ (self._scale * columns) + self._columns.T @ (self._scale * rows)
        return slope

    def _left(self, kept: Array) -> tuple[Array, Array]:
        gone = self.sizes - kept
        return self._all_rows - self._rows @ gone, self._all_columns - self._columns @ gone
