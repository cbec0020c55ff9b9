"""Calibration: the record of statistics, without the statistics."""

from __future__ import annotations

from pathlib import Path

from onnxprune.report.memory import memory_use
from onnxprune.report.schema import CalibratedLayer, Calibration
from onnxprune.statistics import Statistics


def summarise(statistics: Statistics, model: Path, output: Path) -> Calibration:
    """The record of `statistics` of `model`, written to `output`."""
    layers = (
        CalibratedLayer(name=name, positions=layer.positions, blocked=statistics.blocked.get(name))
        for name, layer in statistics.layers.items()
    )
    return Calibration(
        model=str(model),
        output=str(output),
        samples=statistics.samples,
        positions=statistics.positions,
        loss=statistics.loss,
        average=statistics.average,
        seed=statistics.seed,
        memory=memory_use(statistics.plan),
        layers=tuple(layers),
    )
