"""The task of one pruning, as data: the dense model, its statistics, the budget, the units that go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.budget import Budget, make_budget
from onnxprune.cut import Cut, remove_cut
from onnxprune.data import Data
from onnxprune.layers import Layer, find_layers
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.rounds import FULL, Effort
from onnxprune.statistics import Statistics

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Masks = dict[str, Mask]
Gather = Callable[[ir.Model], Statistics]

_NO_BUDGET = Budget((), 0, 0, 0, {}, {})  # where only units are pruned


@dataclass
class Task:
    """All that pruning needs: the dense model, its data and statistics, the budget and the options.

    `cut` has the units that go, `allowed` and `silent` say of every layer that is refitted which weights may
    stay, bool [groups, d_out, d_in], and which rows make units that go, bool [groups, d_out]. `known` holds
    what does not depend on the budget, so that tasks which differ in nothing else may share it.
    """

    dense: ir.Model
    data: Data
    statistics: Statistics | None
    budget: Budget
    options: Options
    gather: Gather
    progress: Progress
    cut: Cut | None = None
    allowed: Masks = field(default_factory=dict)
    silent: Masks = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    effort: Effort = FULL

    def off_units(self, layer: Layer) -> Mask:
        """The weights of a layer that are on no unit that goes, [groups, d_out, d_in]."""
        everything = np.ones((layer.groups, layer.d_out, layer.d_in), dtype=bool)
        return self.allowed.get(layer.name, everything)

    def staying(self, layer: Layer) -> Mask:
        """The channels that a layer reads and that are no units that go, bool [groups, channels]."""
        shape = (layer.groups, layer.d_out, layer.d_in // layer.kernel, layer.kernel)
        return np.asarray(self.off_units(layer).reshape(shape).any(axis=(1, 3)))

    def may_stay(self, layer: Layer) -> Mask:
        """Those of them, of a layer of the dense model, that are not zero."""
        mask: Mask = self.off_units(layer) & (layer.read()[0] != 0)
        return mask


def make_task(
    dense: ir.Model,
    data: Data,
    statistics: Statistics | None,
    layers: Sequence[Layer],
    cut: Cut | None,
    options: Options,
    gather: Gather,
    progress: Progress,
    known: dict[str, Any] | None = None,
    effort: Effort = FULL,
) -> Task:
    """The task of pruning `layers` of the dense model to the budget of `options`, the units of `cut` first.

    `known` is that of another task, with options that differ in their budget only; `effort` goes to sweeps.

    Raises:
        BudgetError: what is never pruned exceeds the ratio already.
    """
    slim = None
    task = Task(dense, data, statistics, _NO_BUDGET, options, gather, progress, cut, effort=effort)
    task.known = {} if known is None else known
    if cut is not None:
        masks, silent = cut.masks()
        for layer in find_layers(dense.graph):
            if not any(layer.matches(pattern) for pattern in options.exclude):
                everything = np.ones((layer.groups, layer.d_out, layer.d_in), dtype=bool)
                task.allowed[layer.name] = masks.get(layer.name, everything)
                task.silent[layer.name] = silent.get(layer.name, np.zeros(everything.shape[:2], dtype=bool))
    if options.prunes_weights:
        if cut is not None:  # the budget is of what the cut leaves
            slim = dense.clone()
            remove_cut(slim, cut)
        task.budget = make_budget(dense, layers, options, options.surgeon != "none", slim)
    return task
