"""Branches of residual sums: families that may lose all their units, since the sum goes on without them.

An *exit* is a layer that reads a family alone and whose output goes, alone, into an Add of the same shape.
Without weights it is its bias, a constant that the sum may keep. Where every way from a family's units to the
outputs of the model leads through exits, nothing else needs the units, and the whole branch may go.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxprune.layers import Layer
from onnxprune.units.families import Families, Family, Touch


def exits(families: Families) -> dict[str, tuple[Layer, ...]]:
    """By family that may be emptied, the layers that give only their bias then."""
    found = {}
    for family in families.families:
        layers = tuple(
            touch.layer for touch in family.readers if _reads_all(touch) and _is_summed(touch.layer)
        )
        if layers and not _leads_outside(family, {use.node for layer in layers for use in layer.uses}):
            found[family.name] = layers
    return found


def same_shape(value: ir.Value | None, other: ir.Value) -> bool:
    """Whether both shapes are known to be equal; a symbolic axis equals one of its own name."""
    if value is None or value.shape is None or other.shape is None or len(value.shape) != len(other.shape):
        return False
    return all(
        dim == same and (isinstance(dim, int) or dim.value is not None)
        for dim, same in zip(value.shape, other.shape, strict=True)
    )


def _reads_all(touch: Touch) -> bool:
    return bool(touch.indices.size == touch.layer.groups * touch.layer.d_in)


def _is_summed(layer: Layer) -> bool:
    return all(_goes_into_sum(use.output) for use in layer.uses)


def _goes_into_sum(value: ir.Value) -> bool:
    users = list(value.uses())
    if len(users) != 1 or value.is_graph_output() or users[0].node.op_type != "Add":
        return False
    node, place = users[0]
    total = node.outputs[0]
    return same_shape(node.inputs[1 - place], total) and same_shape(value, total)


def _leads_outside(family: Family, stops: Iterable[ir.Node]) -> bool:
    """Whether some output of the model depends on the units in another way than through `stops`."""
    seen = set(stops)
    waiting = [use.node for touch in family.makers for use in touch.layer.uses if use.node not in seen]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for value in node.outputs:
            if value.is_graph_output():
                return True
            waiting.extend(use.node for use in value.uses())
    return False
