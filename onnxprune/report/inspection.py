"""Inspection: what is in a model and what of it can be pruned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune import layers as layering
from onnxprune import model as models
from onnxprune.layers import Layer, Layers, find_layers
from onnxprune.normalise.note import Note
from onnxprune.options import Options
from onnxprune.report.schema import InspectedLayer, InspectedUnits, Inspection, Skipped
from onnxprune.report.versions import versions
from onnxprune.saliency import saliency
from onnxprune.saliency.units import costs_alone
from onnxprune.statistics import Statistics
from onnxprune.statistics.opening import open_statistics
from onnxprune.units import Groups, unit_groups
from onnxprune.units.families import Costs, Families, Family, find_families
from onnxprune.units.ties import constant


def inspect_model(path: Path, statistics: Sequence[str | Path | Statistics] = ()) -> Inspection:
    """Load the model at `path` and describe it.

    Args:
        path: an ONNX file.
        statistics: statistics from `calibrate`, or their files: with them it is said how sensitive the layers
            and units are.

    Raises:
        ModelError: not a model we can read.
        StatisticsError: statistics that are not of this model.
    """
    model = models.load(path)
    graph = model.ir.graph
    layers = find_layers(graph)
    known = open_statistics(model, statistics) if statistics else None
    worth = _importance(layers, known)
    total = sum(worth.values()) or 1.0
    families = find_families(unit_groups(graph), layers)
    return Inspection(
        model=str(path),
        sha256=model.sha256,
        statistics=None if known is None else f"{known.samples:,} samples, loss {known.loss}",
        bytes=model.bytes,
        parameters=models.parameter_count(model),
        opset_before=model.opset_before,
        inputs=tuple(_described(value) for value in graph.inputs),
        outputs=tuple(_described(value) for value in graph.outputs),
        layers=tuple(_layer_row(layer, worth.get(layer.name), total) for layer in layers),
        units=_units(families, known),
        frozen=_named(families.skipped),
        skipped=_named([*layers.skipped, *_blocked(known)]),
        notes=_named(model.notes),
        versions=versions(),
    )


def _named(entries: Iterable[layering.Skipped | Note]) -> tuple[Skipped, ...]:
    return tuple(Skipped(name=entry.name, reason=entry.reason) for entry in entries)


def _blocked(known: Statistics | None) -> list[layering.Skipped]:
    reasons = {} if known is None else known.blocked
    return [layering.Skipped(name, f"not scored: {reason}") for name, reason in reasons.items()]


def _layer_row(layer: Layer, worth: float | None, total: float) -> InspectedLayer:
    return InspectedLayer(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        groups=layer.groups,
        weights=layer.size,
        density=np.count_nonzero(layer.read()[0]) / max(1, layer.size),
        macs=layer.macs,
        importance=None if worth is None else worth / total,
        loss_per_weight=None if worth is None else worth / max(1, layer.size),
    )


def _importance(layers: Layers, known: Statistics | None) -> dict[str, float]:
    """The sum of all saliencies of each layer that a gradient reaches, as `compress` scores weights."""
    if known is None:
        return {}
    rng, damping = np.random.default_rng(0), Options.model_fields["damping"].default
    return {
        layer.name: float(saliency("mlprune", layer.read()[0], known.layers[layer.name], damping, rng).sum())
        for layer in layers
        if layer.name not in known.blocked
    }


def _units(families: Families, known: Statistics | None) -> tuple[InspectedUnits, ...]:
    positions = {
        name: None if layer.macs is None else layer.macs / layer.size
        for name, (layer, _) in families.views.items()
    }
    costs = Costs(families, {name: 1.0 if count is None else count for name, count in positions.items()})
    slopes = costs.slope(costs.sizes)
    return tuple(
        InspectedUnits(
            name=family.name,
            units=family.size,
            makers=tuple(touch.layer.name for touch in family.makers),
            readers=tuple(touch.layer.name for touch in family.readers),
            parameters=_parameters(families.groups, int(family.units[0])),
            macs=None if any(positions[layer.name] is None for layer in family.layers) else round(slope),
            costs=_costs(family, known),
        )
        for family, slope in zip(families.families, slopes.tolist(), strict=True)
    )


def _costs(family: Family, known: Statistics | None) -> tuple[float, ...] | None:
    if known is None or any(touch.layer.name in known.blocked for touch in family.readers or family.makers):
        return None
    costs = costs_alone(family, known.layers, "linear")
    return tuple(float(f"{cost:.4g}") for cost in costs.tolist())


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
