"""Prepared: a model and its calibration data, opened once, to be pruned many times.

What does not depend on the budget is worked out once: statistics, the orders in which units leave, the scores
of weights, the widths this machine runs fast. What a method repairs with, such as the sweep, is done anew for
every budget. Nothing here writes or measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune import algebra
from onnxprune.budget import require, select
from onnxprune.clock import Clock
from onnxprune.cluster import gather
from onnxprune.comparable import require_comparable
from onnxprune.cut import Cut, Evidence, Ranking, rank, remove_cut, share
from onnxprune.data import Data, Source, open_data
from onnxprune.data.inputs import fixed_batch
from onnxprune.data.parting import parted
from onnxprune.layers import Skipped, find_layers
from onnxprune.model import Model, load
from onnxprune.options import Options
from onnxprune.passes.cleanup import cleanup
from onnxprune.passes.dead_units import remove_dead_units
from onnxprune.progress import Progress, Silent
from onnxprune.prune import Pruned, prune
from onnxprune.room import required
from onnxprune.rounds import DRAFT, FULL, Effort
from onnxprune.saliency import NEEDS_GRADIENTS, NEEDS_STATISTICS
from onnxprune.speeds import SpeedTable, measure
from onnxprune.statistics import Gathering, Statistics
from onnxprune.statistics.opening import open_calibration, open_statistics
from onnxprune.statistics.shelf import shelved
from onnxprune.task import make_task

_BUDGETS = ("ratio", "units", "macs")
_SKETCH = {"surgeon": "none", "replace": "zero", "steps": 1}
_DRAFTED = 0.75  # share of the weights whose layers see rows enough in a draft


@dataclass
class Candidate:
    """One pruning of a prepared model: the graph as it is before packing, and how it came about.

    `before_removal` has the dead units still: the graph that a written file is checked against. A `draft`
    is for measuring only.
    """

    options: Options
    model: ir.Model
    before_removal: ir.Model
    pruned: Pruned
    cut: Cut | None
    statistics: Statistics | None
    skipped: tuple[Skipped, ...]
    draft: bool = False


@dataclass
class _Known:
    """What one method, that is all options but the budget, need not work out again."""

    ranking: Ranking | None = None
    weights: dict[str, Any] = field(default_factory=dict)


class Prepared:
    """A model to prune by `methods`; all of these share samples, batch size, seed and provider.

    Statistics are gathered when they are first needed, once for each way of averaging, with all that any of
    the methods wants of them.
    """

    def __init__(
        self,
        model: str | Path | Model,
        data: Source | None,
        methods: Sequence[Options],
        *,
        statistics: Sequence[str | Path | Statistics] = (),
        progress: Progress | None = None,
    ) -> None:
        """Load the model, if it is not, and open the data.

        Raises:
            ModelError, DataError: either cannot be used, or outputs cannot be compared.
            BudgetError: nothing in the model can be pruned.
        """
        self.clock, self.progress = Clock(), progress or Silent()
        self._methods, self._given = tuple(methods), tuple(statistics)
        first = self._methods[0]
        with self.clock.stage("load"):
            self.model = model if isinstance(model, Model) else load(model)
            require_comparable(self.model.ir.graph)
            self.layers = find_layers(self.model.ir.graph)
            require(self.layers.layers, self.layers.skipped)
            drawn = first.samples, first.batch_size, first.seed
            self.source = open_calibration(self.model, data, *drawn, self.progress)
        self._gathered: dict[Gathering, Statistics] = {}
        self._opened: Statistics | None = None
        self._known: dict[str, _Known] = {}
        self._speeds: SpeedTable | None = None
        self.predicted = 0  # peak of resident memory while pruning, where there is a limit

    def open_evaluation(self, evaluation: Source | None) -> Data:
        """The data to measure on: `evaluation`, or the calibration data if None."""
        if evaluation is None:
            return self.source
        how: dict[str, Any] = {"batch_size": self.source.batch_size, "seed": self._methods[0].seed}
        with self.clock.stage("load"):
            return open_data(evaluation, self.model.ir.graph.inputs, progress=self.progress, **how)

    def statistics(self, options: Options) -> Statistics | None:
        """Those that `options` need, gathered or opened at the first call; None if they need none."""
        with self.clock.stage("statistics"):
            if self._given:
                self._opened = self._opened or open_statistics(self.model, self._given)
                return self._opened
            if not (_weights_need_statistics(options) or _units_need_statistics(options)):
                return None
            how = self._gathering(options)
            if how not in self._gathered:
                self._gathered[how] = self._collect(self.model.ir, how)
            return self._gathered[how]

    def prune(self, options: Options) -> Candidate:
        """Prune to the budget of `options`.

        Raises:
            BudgetError: it cannot be met, or nothing is left to prune.
            StatisticsError: NaN or Inf on the way.
        """
        return self._prune(options, options)

    def sketch(self, options: Options) -> Candidate:
        """A stand-in for `prune(options)`: as many units and weights of every layer, but nothing is repaired.

        Which weights stay is by their scores, where the sweep would choose others. Its size and speed are
        very nearly those of the real one, its outputs are worthless.
        """
        return self._prune(options, options.model_copy(update=_SKETCH))

    def draft(self, options: Options) -> Candidate:
        """A stand-in for `prune(options)` that does nearly as well, for a fraction of its time.

        The sweep has fewer rounds, samples and rows, and what regrows is left out. Where nothing is swept it
        is `prune(options)` itself.
        """
        if not _sweeps(options):
            return self.prune(options)
        how = options.model_copy(update={"regrow": False})
        return self._prune(options, how, DRAFT, self._fewer(options))

    def _fewer(self, options: Options) -> Data:
        """So many of the samples that the layers of most weights have the rows that a draft asks for."""
        statistics = self.statistics(options)
        if statistics is None:
            return self.source
        known = [(layer, statistics.layers.get(layer.name)) for layer in self.layers.layers]
        needs = sorted(
            (DRAFT.rows * layer.d_in / found.positions, layer.size) for layer, found in known if found
        )
        sizes = np.cumsum([size for _, size in needs])
        needed = needs[int(np.searchsorted(sizes, _DRAFTED * sizes[-1]))][0]
        if needed >= self.source.count:
            return self.source
        _, fewer = parted(self.source, needed / self.source.count, options.seed, "all")
        return fewer or self.source

    def _prune(
        self, options: Options, how: Options, effort: Effort = FULL, data: Data | None = None
    ) -> Candidate:
        self._require_room(options)  # said before any work
        statistics = self.statistics(options)
        self.predicted = self._require_room(options)
        usable, left_out = select(self.layers.layers, options, _blocked(statistics, options))
        require(usable, [*self.layers.skipped, *left_out])
        method = options.model_copy(update=dict.fromkeys(_BUDGETS)).model_dump_json()
        known = self._known.setdefault(method, _Known())
        cut = self._cut(options, statistics, known) if options.prunes_units else None
        with self.clock.stage("prune"):
            gathering = self._gathering(options)
            task = make_task(
                self.model.ir,
                data or self.source,
                statistics,
                usable,
                cut,
                how,
                lambda graph: self._collect(graph, gathering),
                self.progress,
                known.weights,
                effort,
            )
            with algebra.on(options.provider):
                pruned = prune(task)
        with self.clock.stage("clean up"):
            before_removal = pruned.model.clone()
            if cut is not None:
                remove_cut(pruned.model, cut)
                if (
                    cut.approximate
                ):  # removing is not silencing then: the graph without the units is the truth
                    before_removal = pruned.model.clone()
            # A pattern goes by where channels stand: without a dead one, all after it would move up.
            dead = () if options.pattern is not None else remove_dead_units(pruned.model).kept
            cleanup(pruned.model)
        skipped = [*self.layers.skipped, *left_out, *(cut.skipped if cut is not None else ())]
        skipped += [Skipped(note.name, note.reason) for note in dead]
        made = (options, pruned.model, before_removal, pruned, cut, statistics, tuple(skipped))
        return Candidate(*made, draft=effort is DRAFT)

    def _require_room(self, options: Options) -> int:
        return 0 if options.memory is None else required(self.layers.layers, self.source, options.memory)

    def few(self, data: Data, options: Options) -> Data:
        """`data` in batches that may run at once where memory is limited."""
        statistics = self.statistics(options) if options.memory is not None else None
        if statistics is None or statistics.plan is None or fixed_batch(data.inputs) is not None:
            return data
        return replace(data, batch_size=min(data.batch_size, statistics.plan.run))

    def _cut(self, options: Options, statistics: Statistics | None, known: _Known) -> Cut:
        with self.clock.stage("units"):
            if options.round_to == "auto" and self._speeds is None:
                self._speeds = measure(self.model.ir, options.provider)
            speeds = self._speeds if options.round_to == "auto" else None
            evidence = Evidence(self.source, statistics, self._gathering(options), self.progress, speeds)
            known.ranking = known.ranking or rank(self.model.ir, self.layers, options, evidence)
            return share(known.ranking, options, evidence)

    def _gathering(self, options: Options) -> Gathering:
        """How statistics are gathered for `options`, and for all methods that can use the same ones."""
        own = gathering(options)
        others = [gathering(method) for method in self._methods]
        same = [other for other in others if replace(other, gradients=own.gradients) == own]
        return replace(own, gradients=own.gradients or any(other.gradients for other in same))

    def _collect(self, graph: ir.Model, how: Gathering) -> Statistics:
        found = gather(graph, self.model.sha256, self.source, how, self.progress)
        found.layers = shelved(found.layers)
        return found


def gathering(options: Options) -> Gathering:
    """How statistics are gathered for these options alone."""
    for_units = options.prunes_units and options.score == "kfac"
    return Gathering(
        loss=options.loss,
        gradients=for_units or _weights_need_gradients(options),
        average=options.average,
        seed=options.seed,
        provider=options.provider,
        positions=options.positions,
        memory=options.memory,
    )


def _sweeps(options: Options) -> bool:
    units = options.prunes_units and options.replace == "linear"
    return units or (options.prunes_weights and options.surgeon == "sweep")


def _weights_need_statistics(options: Options) -> bool:
    return options.prunes_weights and (options.saliency in NEEDS_STATISTICS or options.surgeon != "none")


def _weights_need_gradients(options: Options) -> bool:
    ranked = options.saliency in NEEDS_GRADIENTS or options.surgeon in ("paper", "joint")
    return options.prunes_weights and (ranked or options.allocation == "balanced")


def _units_need_statistics(options: Options) -> bool:
    needed = options.score == "kfac" or options.replace == "mean" or options.macs is not None
    return options.prunes_units and needed


def _blocked(statistics: Statistics | None, options: Options) -> dict[str, str]:
    """Layers whose weights cannot be pruned for want of a gradient."""
    return statistics.blocked if statistics is not None and _weights_need_gradients(options) else {}
