"""Inspection: what is in a model and what of it can be pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune import model as models
from onnxprune.layers import find_layers
from onnxprune.report.schema import InspectedLayer, InspectedUnits, Inspection, Skipped
from onnxprune.units import Groups, unit_groups
from onnxprune.units.families import Costs, Families, find_families
from onnxprune.units.ties import constant


def inspect_model(path: Path) -> Inspection:
    """Load the model at `path` and describe it.

    Raises:
        ModelError: not a model we can read.
    """
    model = models.load(path)
    graph = model.ir.graph
    layers = find_layers(graph)
    rows = []
    for layer in layers:
        weight = layer.weight.const_value
        assert weight is not None  # find_layers takes constant weights only
        array = weight.numpy()
        density = np.count_nonzero(array) / max(1, array.size)
        rows.append(
            InspectedLayer(
                name=layer.name,
                op=layer.op,
                shape=tuple(array.shape),
                groups=layer.groups,
                weights=layer.size,
                density=density,
                macs=layer.macs,
            )
        )
    families = find_families(unit_groups(graph), layers)
    return Inspection(
        model=str(path),
        bytes=model.bytes,
        parameters=models.parameter_count(model),
        opset_before=model.opset_before,
        inputs=tuple(_described(value) for value in graph.inputs),
        outputs=tuple(_described(value) for value in graph.outputs),
        layers=tuple(rows),
        units=_units(families),
        frozen=tuple(Skipped(name=entry.name, reason=entry.reason) for entry in families.skipped),
        skipped=tuple(Skipped(name=entry.name, reason=entry.reason) for entry in layers.skipped),
        notes=tuple(Skipped(name=entry.name, reason=entry.reason) for entry in model.notes),
    )


def _units(families: Families) -> tuple[InspectedUnits, ...]:
    positions = {
        name: None if layer.macs is None else layer.macs / layer.size
        for name, (layer, _) in families.views.items()
    }
    known = {name: 1.0 if count is None else count for name, count in positions.items()}
    costs = Costs(families, known)
    slopes = costs.slope(costs.sizes)
    worth = [_parameters(families.groups, int(family.units[0])) for family in families.families]
    return tuple(
        InspectedUnits(
            name=family.name,
            units=family.size,
            makers=tuple(touch.layer.name for touch in family.makers),
            readers=tuple(touch.layer.name for touch in family.readers),
            parameters=parameters,
            macs=None if any(positions[layer.name] is None for layer in family.layers) else round(slope),
        )
        for family, slope, parameters in zip(families.families, slopes.tolist(), worth, strict=True)
    )


def _parameters(groups: Groups, unit: int) -> int:
    """Entries of float constants that go with one unit."""
    total = 0
    for member in groups.members(unit):
        array = constant(member.section.value)
        if array is not None and array.dtype.kind == "f":
            total += array.size // array.shape[member.section.axis] * len(member.indices)
    return total


def _described(value: ir.Value) -> str:
    return f"{value.name} {value.type}{value.shape if value.shape is not None else '[...]'}"
