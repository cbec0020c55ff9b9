"""Inspection: what is in a model and what of it can be pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune import model as models
from onnxprune.layers import find_layers
from onnxprune.report.schema import InspectedLayer, Inspection, Skipped


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
    return Inspection(
        model=str(path),
        bytes=model.bytes,
        parameters=models.parameter_count(model),
        opset_before=model.opset_before,
        inputs=tuple(_described(value) for value in graph.inputs),
        outputs=tuple(_described(value) for value in graph.outputs),
        layers=tuple(rows),
        skipped=tuple(Skipped(name=entry.name, reason=entry.reason) for entry in layers.skipped),
        notes=tuple(Skipped(name=entry.name, reason=entry.reason) for entry in model.notes),
    )


def _described(value: ir.Value) -> str:
    return f"{value.name} {value.type}{value.shape if value.shape is not None else '[...]'}"
