"""Cut units out of a graph: slice every constant, rewrite every integer parameter, all of one unit together.

Cutting is silencing: where the carried values of the units are zero, or the weights that read them are, the
outputs of the model stay as they were. Inputs and outputs of the model never change shape. The table
`_REWRITES` has the ops whose attributes or integer inputs count indices of an axis that is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.edits import fresh_name, set_input
from onnxprune.errors import ModelError
from onnxprune.units import Groups
from onnxprune.units.moving import pads, slices, target
from onnxprune.units.ties import Axes, Slots, constant, given

Keep = npt.NDArray[np.bool_]


def remove_units(model: ir.Model, groups: Groups, units: Iterable[int]) -> int:
    """Cut `units` in place, and return how many entries of constants went with them.

    Args:
        model: the normalised model that `groups` was made of, unchanged since.
        groups: from `unit_groups(model.graph)`; of no use afterwards.
        units: classes to cut.

    Raises:
        ModelError: a class is frozen, or an axis would lose all its indices; the model is as it was.
    """
    cut = _Cut(groups, units)
    cut.check()
    for node in model.graph:
        rewrite = _REWRITES.get(node.op_type) if node.domain == "" else None
        if rewrite is not None and cut.touches(node):
            rewrite(cut, node)
    return sum(cut.slice(value, use, axes) for (value, use), axes in list(groups.values()))


class _Cut:
    """Which slots stay, and the editing that all ops share."""

    def __init__(self, groups: Groups, units: Iterable[int]) -> None:
        self.groups = groups
        self.units = np.unique(np.fromiter(units, dtype=np.int64))
        stays = np.ones(groups.count, dtype=bool)
        stays[self.units] = False
        self.stays: Keep = stays[groups.labels]

    def check(self) -> None:
        for unit in self.units:
            if int(unit) in self.groups.frozen:
                raise ModelError(f"unit {unit} cannot be cut: {self.groups.frozen[int(unit)]}; leave it out")
        for section in self.groups.sections:
            if section.size and not self.stays[section.slots].any():
                raise ModelError(
                    f"axis {section.axis} of '{section.value.name}' would lose all {section.size} indices; "
                    "keep at least one unit"
                )

    def touches(self, node: ir.Node) -> bool:
        everything = [*self.groups.inputs(node), *self.groups.outputs(node)]
        return any(self.cuts(slots) for axes in everything for slots in axes or [])

    def cuts(self, slots: Slots | None) -> bool:
        return slots is not None and not self.stays[slots].all()

    def input(self, node: ir.Node) -> Axes:
        return self.groups.inputs(node)[0] or []

    def output(self, node: ir.Node) -> Axes:
        return self.groups.outputs(node)[0] or []

    def kept(self, slots: Slots) -> int:
        return int(self.stays[slots].sum())

    def slice(self, value: ir.Value, use: tuple[ir.Node, int] | None, axes: Axes) -> int:
        """Slice one value; how many entries of a constant that took."""
        if not any(self.cuts(slots) for slots in axes):
            return 0
        array = constant(value)
        if array is None:
            dims = value.shape or ()
            sizes = [
                dim if slots is None else self.kept(slots) for slots, dim in zip(axes, dims, strict=True)
            ]
            value.shape = ir.Shape(sizes)
            return 0
        sliced = array[np.ix_(*(self.stays[slots] for slots in axes if slots is not None))]
        if use is not None:
            set_input(*use, sliced)
        else:
            value.const_value = ir.tensor(sliced, name=value.name)
            value.shape = ir.Shape(sliced.shape)
        return array.size - sliced.size


def _group(cut: _Cut, node: ir.Node) -> None:
    """Depthwise: as many groups as channels. Other groups each lose the same indices."""
    channels = cut.input(node)[1]
    if channels is not None and node.attributes.get_int("group", 1) == len(channels) > 1:
        node.attributes["group"] = ir.AttrInt64("group", cut.kept(channels))


def _split(cut: _Cut, node: ir.Node) -> None:
    axis = node.attributes.get_int("axis", 0) % len(cut.input(node))
    parts = [(axes or [])[axis] for axes in cut.groups.outputs(node)]
    if not any(cut.cuts(part) for part in parts):
        return
    sizes = [cut.kept(part) for part in parts if part is not None]
    node.attributes.pop("num_outputs", None)
    set_input(node, 1, np.array(sizes, dtype=np.int64))


def _slice(cut: _Cut, node: ir.Node) -> None:
    x, y = cut.input(node), cut.output(node)
    taken = slices(node, len(x)) or {}
    bounds = [_integers(node, 1), _integers(node, 2)]
    changed = False
    for place, (axis, part) in enumerate(taken.items()):
        whole, kept = x[axis], y[axis]
        if part is not None and whole is not None and kept is not None and cut.cuts(whole):
            start = cut.kept(whole[: range(len(whole))[part].start])
            bounds[0][place], bounds[1][place] = start, start + cut.kept(kept)
            changed = True
    if changed:
        for index, array in enumerate(bounds, start=1):
            set_input(node, index, array)


def _pad(cut: _Cut, node: ir.Node) -> None:
    y = cut.output(node)
    amounts = pads(node, len(y)) or {}
    kept = dict(amounts)
    for axis, (before, after) in amounts.items():
        slots = y[axis]
        if slots is not None and cut.cuts(slots):
            kept[axis] = (cut.kept(slots[:before]), cut.kept(slots[len(slots) - after :]))
    if kept != amounts:
        befores, afters = zip(*kept.values(), strict=True)
        set_input(node, 1, np.array(befores + afters, dtype=np.int64))


def _gather(cut: _Cut, node: ir.Node) -> None:
    x = cut.input(node)
    axis = node.attributes.get_int("axis", 0) % len(x)
    whole, chosen = x[axis], constant(node.inputs[1])
    if whole is None or chosen is None or not cut.cuts(whole):
        return
    stays = cut.stays[whole]
    positions = chosen % len(whole)
    set_input(node, 1, (np.cumsum(stays) - 1)[positions[stays[positions]]].astype(chosen.dtype))


def _target(index: int, unchanged: int) -> Callable[[_Cut, ir.Node], None]:
    """Input `index` has the sizes of the output's axes, aligned on the right; an entry `unchanged` stays."""

    def rewrite(cut: _Cut, node: ir.Node) -> None:
        entries = target(node.inputs[index])
        if entries is None:
            return
        sizes = [
            cut.kept(slots) if slots is not None and cut.cuts(slots) and entry != unchanged else entry
            for slots, entry in zip(cut.output(node)[-len(entries) :], entries, strict=True)
        ]
        if constant(node.inputs[index]) is not None:
            set_input(node, index, np.array(sizes, dtype=np.int64))
        elif sizes != entries:
            _rejoin(node, index, sizes)

    return rewrite


def _rejoin(node: ir.Node, index: int, sizes: list[int | None]) -> None:
    """Put `sizes` into the constants of the Concat that makes input `index`, a copy if others read it."""
    shape, graph = node.inputs[index], node.graph
    concat = shape.producer() if shape is not None else None
    assert shape is not None and isinstance(graph, ir.Graph) and concat is not None
    if len(shape.uses()) > 1 or shape.is_graph_output():
        name = fresh_name(graph, f"{shape.name}.{node.name}")
        copy = ir.Value(name=name, type=shape.type, shape=shape.shape)
        concat = ir.Node("", "Concat", concat.inputs, concat.attributes.values(), outputs=[copy], name=name)
        graph.insert_before(node, concat)
        node.replace_input_with(index, copy)
    start = 0
    for place, part in enumerate(concat.inputs):
        array, end = constant(part), start + len(target(part) or ())
        if array is not None:
            set_input(concat, place, np.array(sizes[start:end], dtype=np.int64))
        start = end


def _resize(cut: _Cut, node: ir.Node) -> None:
    sizes, y = constant(node.inputs[3]) if given(node, 3) else None, cut.output(node)
    if sizes is None:
        return
    axes = node.attributes.get_ints("axes") or range(len(y))
    outputs = [y[axis] for axis in axes]
    new = [
        size if slots is None or not cut.cuts(slots) else cut.kept(slots)
        for size, slots in zip(sizes, outputs, strict=True)
    ]
    set_input(node, 3, np.array(new, dtype=np.int64))


def _integers(node: ir.Node, index: int) -> npt.NDArray[Any]:
    array = constant(node.inputs[index]) if given(node, index) else None
    return np.empty(0, dtype=np.int64) if array is None else array.copy()


_REWRITES: dict[str, Callable[[_Cut, ir.Node], None]] = {
    "Conv": _group,
    "ConvTranspose": _group,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Reshape": _target(1, unchanged=-1),
    "Expand": _target(1, unchanged=1),
    "Resize": _resize,
}
