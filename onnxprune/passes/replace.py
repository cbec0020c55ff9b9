"""Silence units, and put what they were on average into the biases behind them.

    zero   W_J ← 0                        mean   W_J ← 0, b += W_J μ_J

J are the columns that read a unit and μ_J their mean over samples and positions, padding zeros included: the
best that a bias alone can do (Mean Replacement Pruning, eq. 4; design §2). Rows that make the unit become
zero too. `linear`, where the kept weights take over as well, is the sweep's refit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.layers import Layer, find_layers
from onnxprune.passes.bias import add_to_bias
from onnxprune.units import unit_groups
from onnxprune.units.linear import linear
from onnxprune.units.ties import constant

Array = npt.NDArray[Any]
Masks = Mapping[str, npt.NDArray[np.bool_]]


def replace_units(
    model: ir.Model, kept: Masks, silent: Masks, means: Mapping[str, Array] | None = None
) -> None:
    """Zero the weights that are not kept, in place, and fold the means of the columns that go.

    Args:
        model: normalised; every layer that reads a unit has a bias (see `give_biases`) if means are given.
        kept: bool [groups, d_out, d_in] by layer.
        silent: rows that give zero, bias included: bool [groups, d_out] by layer.
        means: mean of a layer's input, float64 [groups, d_in]; None to replace by zero.
    """
    for layer in find_layers(model.graph):
        if layer.name not in kept:
            continue
        weights, bias = layer.read()
        stays, quiet = kept[layer.name], silent[layer.name]
        if bias is not None:
            if means is not None:
                gone = np.where(stays, 0.0, weights)
                bias = bias + np.einsum("goi,gi->go", gone, means[layer.name])
            bias = np.where(quiet, 0.0, bias)
        layer.write(np.where(stays, weights, 0.0), bias)


def give_biases(model: ir.Model, kept: Masks) -> list[str]:
    """Give a bias of zeros to each layer that loses whole columns and has none, in place.

    Returns:
        Layers that lose columns and cannot have one: a MatMul whose weight is used in several places.
    """
    layers = [layer for layer in find_layers(model.graph) if layer.bias is None and _loses(layer, kept)]
    if not layers:
        return []
    groups = unit_groups(model.graph)
    without: list[str] = []
    for layer in layers:
        if layer.op == "MatMul" and len(layer.uses) > 1:
            without.append(layer.name)
            continue
        for use in layer.uses:
            view = linear(use.node, groups, constant)
            assert view is not None  # what loses columns was cut by these slots
            add_to_bias(view, np.zeros(view.y.shape))
        first, *others = (use.node for use in layer.uses)
        for node in others:  # one bias for all, as one weight
            own = node.inputs[2]
            node.replace_input_with(2, first.inputs[2])
            if own is not None and own is not first.inputs[2] and own.is_initializer():
                del model.graph.initializers[own.name or ""]
    return without


def _loses(layer: Layer, kept: Masks) -> bool:
    return layer.name in kept and not bool(kept[layer.name].any(axis=1).all())
