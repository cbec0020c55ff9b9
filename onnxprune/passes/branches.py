"""Take branches out of residual sums: a summand that is the same for every input becomes a constant.

    x + c    c = [C, 1, …], one number a channel, where x alone has the shape of the sum

What computed the summand is left without a reader, and `cleanup` removes it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxprune.edits import set_input
from onnxprune.layers import find_layers
from onnxprune.normalise.unused import RemoveUnused
from onnxprune.passes.constants import Constants
from onnxprune.units import unit_groups
from onnxprune.units.branches import same_shape
from onnxprune.units.ties import is_constant


def remove_branches(model: ir.Model, exits: Collection[str]) -> None:
    """Take the branches out that end in the layers named, whose weights become zero; in place."""
    if not exits:
        return
    for layer in find_layers(model.graph):
        if layer.name in exits:
            weights, bias = layer.read()
            layer.write(np.zeros_like(weights), bias)
    remove_constant_branches(model)


def remove_constant_branches(model: ir.Model) -> int:
    """Replace constant summands in place, and say how many; exact but for rounding.

    Args:
        model: normalised, zeros in its weights.
    """
    groups = unit_groups(model.graph)
    known = Constants(model.graph, groups, model.opset_imports[""])
    removed = 0
    for node in model.graph:
        if node.op_type != "Add" or node.domain != "":
            continue
        for place, value in enumerate(node.inputs):
            if value is None or is_constant(value) or not same_shape(node.inputs[1 - place], node.outputs[0]):
                continue
            numbers = _numbers(known, value)
            if numbers is not None and value.dtype is not None:
                set_input(node, place, numbers.astype(value.dtype.numpy()))
                removed += 1
                break
    if removed:
        RemoveUnused()(model)
    return removed


def _numbers(known: Constants, value: ir.Value) -> np.ndarray | None:
    """The value, if it is a constant along one axis: that axis and ones behind it."""
    axes = known.groups.axes(value) or []
    for depth, slots in enumerate(axes[::-1]):
        if slots is not None and len(slots) and not np.isnan(known.of[slots]).any():
            return known.of[slots].reshape(-1, *[1] * depth)
    return None
