"""Tie rules of the ops that move indices about: joining, cutting, padding, reshaping, resizing.

`slices`, `pads` and `target` read the integer parameters of such a node; whoever cuts a unit rewrites them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.units.reshape import Dim, Part, factors
from onnxprune.units.ties import Axes, Fold, Rule, Slots, Ties, constant, given, integers, is_constant


def _concat(t: Ties) -> str | None:
    axis = t.node.attributes.get_int("axis") % len(t.out)
    parts = [operand[axis] for operand in t.inputs if operand]
    for operand in t.inputs:
        for k, slots in enumerate(operand or []):
            if k != axis:
                t.tie(slots, t.out[k])
    if all(part is not None for part in parts):
        t.tie(np.concatenate([part for part in parts if part is not None]), t.out[axis])
    return None


def _split(t: Ties) -> None:
    x = t.axes(0)
    axis = t.node.attributes.get_int("axis", 0) % len(x)
    start = 0
    for output in t.outputs:
        for k, slots in enumerate(output or []):
            whole = x[k]
            if k != axis:
                t.tie(whole, slots)
            elif whole is None or slots is None:
                return
            else:
                t.tie(whole[start : start + len(slots)], slots)
                start += len(slots)


def slices(node: ir.Node, rank: int) -> dict[int, slice | None] | None:
    """Axis → what Slice takes of it, None with a stride or computed bounds; None if the axes are computed."""
    starts, ends, steps = integers(node, 1), integers(node, 2), integers(node, 4)
    axes = integers(node, 3) if given(node, 3) else list(range(len(starts or [])))
    if axes is None or (not given(node, 3) and starts is None):
        return None
    if starts is None or ends is None or (given(node, 4) and steps is None):
        return {axis % rank: None for axis in axes}
    bounds = zip(axes, starts, ends, steps or [1] * len(axes), strict=True)
    return {axis % rank: slice(start, end) if step == 1 else None for axis, start, end, step in bounds}


def _slice(t: Ties) -> str | None:
    cuts = slices(t.node, len(t.out))
    if cuts is None:
        return "slices axes that are computed at run time"
    for k, (x, y) in enumerate(zip(t.axes(0), t.out, strict=True)):
        cut = cuts.get(k, slice(None))
        if x is not None and cut is not None and t.tie(x[cut], y):
            t.free(x)
    return None


def pads(node: ir.Node, rank: int) -> dict[int, tuple[int, int]] | None:
    """Axis → (before, after) of a Pad; None if computed at run time."""
    amounts = integers(node, 1)
    axes = integers(node, 3) if given(node, 3) else list(range(rank))
    if amounts is None or axes is None or len(amounts) != 2 * len(axes):
        return None
    around = zip(amounts[: len(axes)], amounts[len(axes) :], strict=True)
    return {axis % rank: pad for axis, pad in zip(axes, around, strict=True)}


def _pad(t: Ties) -> str | None:
    amounts = pads(t.node, len(t.out))
    if amounts is None:
        return "pads by amounts computed at run time"
    constant_mode = t.node.attributes.get_string("mode", "constant") == "constant"
    for k, (x, y) in enumerate(zip(t.axes(0), t.out, strict=True)):
        before, after = amounts.get(k, (0, 0))
        if x is None or y is None or min(before, after) < 0 or (before + after and not constant_mode):
            continue
        if t.tie(x, y[before : len(y) - after]):
            t.free(y)
    return None


def _gather(t: Ties) -> str | None:
    x, indices, y = t.axes(0), t.axes(1), t.out
    axis = t.node.attributes.get_int("axis", 0) % len(x)
    t.tie_all(x[:axis], y)
    t.tie_all(x[axis + 1 :], y[axis + len(indices) :])
    chosen = constant(t.node.inputs[1])
    whole = x[axis]
    if chosen is not None and chosen.ndim == 1 and whole is not None:
        if t.tie(whole[chosen], y[axis]):
            t.free(whole)
    elif chosen is None:
        t.tie_all(indices, y[axis:])
    return None


def _transpose(t: Ties) -> None:
    order = t.node.attributes.get_ints("perm") or range(len(t.out))[::-1]
    t.tie_all((t.axes(0)[axis] for axis in order), t.out)


def _squeeze(t: Ties) -> str | None:
    axes = integers(t.node, 1)
    if axes is None:
        if given(t.node, 1) or any(slots is None for slots in t.axes(0)):
            return "drops axes that are known at run time only"
        axes = [k for k, slots in enumerate(t.axes(0)) if slots is not None and len(slots) == 1]
    dropped = {axis % len(t.axes(0)) for axis in axes}
    t.tie_all((slots for k, slots in enumerate(t.axes(0)) if k not in dropped), t.out)
    return None


def _unsqueeze(t: Ties) -> str | None:
    axes = integers(t.node, 1)
    if axes is None:
        return "adds axes that are known at run time only"
    added = {axis % len(t.out) for axis in axes}
    t.tie_all(t.axes(0), (slots for k, slots in enumerate(t.out) if k not in added))
    return None


def _shape(t: Ties) -> None:
    """Sizes: only the axes that somebody reads are held."""
    rank = len(t.axes(0))
    span = range(rank)[slice(t.node.attributes.get_int("start", 0), t.node.attributes.get_int("end", rank))]
    read: set[int] = set()
    for use in t.node.outputs[0].uses():
        picked = constant(use.node.inputs[1]) if use.node.op_type == "Gather" and use.idx == 0 else None
        cut = slices(use.node, 1) if use.node.op_type == "Slice" and use.idx == 0 else None
        if picked is not None:
            read |= {span[int(index)] for index in picked.ravel()}
        else:
            read |= set(span[(cut or {}).get(0) or slice(None)])
    if t.node.outputs[0].is_graph_output():
        read = set(span)
    for k, slots in enumerate(t.axes(0)):
        if k not in read:
            t.free(slots)


def target(value: ir.Value | None) -> list[int | None] | None:
    """Entries of a shape input, None for a computed one; None altogether if their number is unknown.

    Of a shape joined at run time, those in constants of the Concat itself can be rewritten and are known; of
    what lies further up only -1, which follows a cut by itself.
    """
    array = constant(value)
    if array is not None:
        return [int(entry) for entry in array.ravel()]
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Concat":
        parts = [target(part) if is_constant(part) else _computed(part) for part in node.inputs]
        return None if None in parts else [entry for part in parts for entry in part or []]
    return _computed(value)


def _computed(value: ir.Value | None) -> list[int | None] | None:
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Concat":
        entries = target(value)
        return entries and [entry if entry == -1 else None for entry in entries]
    size = value.shape[0] if value is not None and value.shape is not None and len(value.shape) else None
    return [None] * size if isinstance(size, int) else None


def _reshape(t: Ties) -> str | None:
    entries = target(t.node.inputs[1])
    if entries is None or len(entries) != len(t.out):
        return "has a target shape of unknown length"
    _tie_factors(t, [entry is not None for entry in entries])
    return None


def _flatten(t: Ties) -> None:
    _tie_factors(t, [True, True])


def _tie_factors(t: Ties, rewritable: Sequence[bool]) -> None:
    x, y = t.node.inputs[0], t.node.outputs[0]
    assert x is not None and x.shape is not None and y.shape is not None
    for source, target in factors(_dims(x.shape), _dims(y.shape)):
        before, after = _rows(t.axes(0), source), _rows(t.out, target)
        if before is None or after is None or not rewritable[target.axis]:
            continue
        if before.shape[1] == after.shape[1] == 1:
            t.tie(before, after)
        else:
            t.folds.append(Fold(before, after))


def _dims(shape: ir.Shape) -> list[Dim]:
    return [dim if isinstance(dim, int) else dim.value for dim in shape]


def _rows(axes: Axes, part: Part) -> Slots | None:
    """The slots of an axis by their index of a part, [size, rest]; None for a symbolic axis."""
    slots = axes[part.axis]
    if slots is None or not isinstance(part.size, int):
        return None
    return np.moveaxis(slots.reshape(part.outer, part.size, -1), 1, 0).reshape(part.size, -1)


def _expand(t: Ties) -> str | None:
    entries = target(t.node.inputs[1])
    if entries is None:
        return "has a target shape of unknown length"
    padded = [1] * (len(t.out) - len(entries)) + entries
    for x, y, entry in zip(t.axes(0)[::-1], t.out[::-1], padded[::-1], strict=False):
        if entry is not None:
            t.tie(x, y)
    return None


def _tile(t: Ties) -> str | None:
    repeats = integers(t.node, 1)
    if repeats is None:
        return "repeats as often as is known at run time only"
    t.tie_all((x if times == 1 else None for x, times in zip(t.axes(0), repeats, strict=True)), t.out)
    return None


def _resize(t: Ties) -> str | None:
    node = t.node
    stretch = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    if not stretch or node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "crops or keeps an aspect ratio"
    rank = len(t.out)
    axes = [axis % rank for axis in node.attributes.get_ints("axes") or range(rank)]
    scales = constant(node.inputs[2]) if given(node, 2) else None
    sizes = integers(node, 3)
    for k in range(rank):
        scale = scales.ravel()[axes.index(k)] if scales is not None and scales.size and k in axes else None
        if k not in axes or scale == 1 or (scale is None and sizes is not None):
            t.tie(t.axes(0)[k], t.out[k])
    return None


def _depth_to_space(t: Ties) -> None:
    blocks = t.node.attributes.get_int("blocksize") ** 2
    x, y = t.axes(0), t.out
    t.tie(x[0], y[0])
    if x[1] is not None and y[1] is not None:
        crd = t.node.attributes.get_string("mode", "DCR") == "CRD"
        t.tie(x[1], np.repeat(y[1], blocks) if crd else np.tile(y[1], blocks))


def _space_to_depth(t: Ties) -> None:
    x, y = t.axes(0), t.out
    t.tie(x[0], y[0])
    if x[1] is not None:
        copies = t.node.attributes.get_int("blocksize") ** 2
        column_first = t.node.attributes.get_string("mode", "DCR") == "CRD"  # since opset 28
        t.tie(np.repeat(x[1], copies) if column_first else np.tile(x[1], copies), y[1])


MOVING: dict[str, Rule] = {
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Shape": _shape,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Tile": _tile,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
