"""The part of a network behind one value: where only its readers differ, the rest need not run again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from benchmarks.subjects import Arrays
from onnxprune.data import Data, open_data
from onnxprune.normalise.unused import RemoveUnused
from onnxprune.session import Session


def behind(model: ir.Model, name: str) -> ir.Model | None:
    """A copy of what follows the value `name`, its only input; None if it reads the model's inputs, too."""
    model = model.clone()
    graph = model.graph
    value = next(output for node in graph for output in node.outputs if output.name == name)
    given = ir.Value(name=f"{name}/given", shape=value.shape, type=value.type)
    value.replace_all_uses_with(given)
    RemoveUnused()(model)
    if any(old.uses() for old in graph.inputs):
        return None
    graph.inputs[:] = [given]
    return model


def at(model: ir.Model, name: str, data: Data) -> Data:
    """The values `name` of all samples, with their labels: data for what is `behind` it."""
    model = model.clone()
    value = next(output for node in model.graph for output in node.outputs if output.name == name)
    model.graph.outputs[:] = [value]
    session = Session(model)
    batches = list(data.batches())
    values: Arrays = {
        f"{name}/given": np.concatenate([session.run(batch.feeds)[name] for batch in batches]),
        "labels": np.concatenate([np.asarray(batch.labels) for batch in batches]),
    }
    given = ir.Value(name=f"{name}/given", shape=value.shape, type=value.type)
    return open_data(values, [given], batch_size=data.batch_size)
