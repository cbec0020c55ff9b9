"""Gathering inside a limit: as many passes over the data as it takes, joined, in files if they are large."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.data import Data
from onnxprune.memory import release
from onnxprune.progress import Progress
from onnxprune.statistics.collect import Gathering, collect
from onnxprune.statistics.fitting import plan
from onnxprune.statistics.shelf import Shelf
from onnxprune.statistics.store import Statistics


def gather(
    model: ir.Model,
    sha256: str,
    data: Data,
    how: Gathering | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """The statistics of all layers, inside `how.memory` where that is given.

    They are those of `collect`: the samples, their batches' noise and every sum are the same. Where fewer
    samples of a batch run at once, their float32 sums are rounded elsewhere.

    Raises:
        MemoryBudgetError: what a layer takes does not fit; names it.
        StatisticsError, DataError, GradientError, ModelError: as for `collect`.
    """
    how = how or Gathering()
    if how.memory is None:
        return collect(model, sha256, data, how, progress)
    fitted = plan(model, data, how)
    total: Statistics | None = None
    for number, part in enumerate(fitted.parts, 1):
        passes = len(fitted.parts)
        name = "statistics" if passes == 1 else f"statistics {number} of {passes}"
        found = collect(model, sha256, data, how, progress, part, fitted.run, name)
        if total is None:
            total, layers = found, found.layers
            total.layers = Shelf() if fitted.spilled else {}
        else:
            layers = found.layers
            total.blocked |= found.blocked
        for layer in part:
            total.layers[layer] = layers.pop(layer)
        release()
    assert total is not None  # a model without layers was refused before
    total.plan = fitted
    return total
