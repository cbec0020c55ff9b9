"""Opening calibration data, in batches that the statistics of a model fit in, and saved statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune.data import Batch, Data, Source, open_data
from onnxprune.data.inputs import fixed_batch
from onnxprune.emit import Emitter
from onnxprune.errors import StatisticsError
from onnxprune.layers import find_layers
from onnxprune.model import Model
from onnxprune.progress import Progress
from onnxprune.session import Session
from onnxprune.statistics.files import load
from onnxprune.statistics.shelf import shelved
from onnxprune.statistics.store import Statistics, merge

_FEATURE_BYTES = 256 << 20  # the widest im2col of one batch


def open_calibration(
    model: Model,
    data: Source | None,
    samples: int | None,
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> Data:
    """Open the data, with batches small enough that no layer's im2col exceeds a fixed size.

    The shapes are those of a run of the first sample: symbolic ones say nothing.
    """
    inputs = model.ir.graph.inputs
    source = open_data(data, inputs, samples=samples, batch_size=batch_size, seed=seed, progress=progress)
    if fixed_batch(source.inputs) is not None:
        return source
    first = next(iter(replace(source, batch_size=1).batches()))
    widest = max(1, _widest_features(model.ir, first))
    return replace(source, batch_size=max(1, min(source.batch_size, _FEATURE_BYTES // widest)))


def open_statistics(model: Model, given: Sequence[str | Path | Statistics]) -> Statistics:
    """Merge statistics, or their files, for `model`.

    Args:
        model: the model they must be of.
        given: at least one; several are shards of one data set.

    Raises:
        StatisticsError: they cannot be read or merged, are of another model, or lack a layer or
            have another size of it.
    """
    parts = [part if isinstance(part, Statistics) else load(Path(part)) for part in given]
    statistics = parts[0]
    if len(parts) > 1:
        statistics = merge(parts)
        statistics.layers = shelved(statistics.layers)
    statistics.require(model.sha256)
    for layer in find_layers(model.ir.graph):
        known = statistics.layers.get(layer.name)
        if known is None:
            raise StatisticsError(
                f"the statistics lack layer {layer.name!r}; run `onnxprune calibrate` again"
            )
        if not known.fits(layer):
            raise StatisticsError(
                f"the statistics of layer {layer.name!r} are not of its size; run `onnxprune calibrate` again"
            )
    return statistics


def _widest_features(model: ir.Model, batch: Batch) -> int:
    """Bytes of the largest im2col of `batch` in float32."""
    graph = model.clone()
    op = Emitter(graph.graph, "shapes")
    uses = [(layer, use) for layer in find_layers(graph.graph) for use in layer.uses]
    if not uses:
        return 0
    graph.graph.outputs.clear()
    for _, use in uses:
        shape = op.Shape(use.output)
        shape.dtype = ir.DataType.INT64
        graph.graph.outputs.append(shape)
    shapes = Session(graph, "cpu").run(batch.feeds).values()
    return max(
        4 * layer.d_in * int(np.prod(shape)) // layer.d_out
        for (layer, _), shape in zip(uses, shapes, strict=True)
    )
