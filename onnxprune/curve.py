"""The curve of accuracy against size: several methods at several budgets, from one set of statistics.

The walk that refits (`onnxprune.sweep`) is something else: one way of repairing a single candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from onnxprune.data import Source
from onnxprune.errors import BudgetError, UsageError
from onnxprune.evaluate import evaluate
from onnxprune.metric import Metric, own_metric
from onnxprune.model import Model
from onnxprune.options import Axis, Options, resolve
from onnxprune.pipeline import StatisticsSource, curve_point, finish, listed
from onnxprune.prepared import Candidate, Prepared
from onnxprune.progress import Progress
from onnxprune.report.schema import CurvePoint, Skipped, SweepReport

# What a report of one compression says of the dense model and of the run, and a curve says as well.
_SHARED = ("model", "sha256", "params_before", "macs_before", "bytes_before")
_RUN = ("data", "seconds", "warnings", "versions")


def accuracy_curve(
    model: str | Path | Model,
    data: Source | None = None,
    *,
    recipes: Sequence[str] = ("default",),
    evaluation: Source | None = None,
    statistics: StatisticsSource = None,
    metric: Metric | str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SweepReport:
    """Compress a model by every recipe to every budget, and measure each; nothing is written.

    Statistics are gathered once, with gradients if any recipe wants them; once more for a recipe that
    averages them in another way, as `mlprune` does.

    Args:
        model: an ONNX file, or one loaded with `onnxprune.load`.
        data: calibration data, as for `onnxprune.compress`.
        recipes: names in `options.RECIPES`.
        evaluation: data to measure on; the calibration data against the dense model if None.
        statistics: from `calibrate`, as for `onnxprune.compress`.
        metric: a figure of merit of one's own.
        progress: told of every long stage.
        options: fields of `options.Options`; one of ratio, units and macs has a sequence of values.

    Raises:
        BudgetError: no recipe can meet any budget.
        OnnxPruneError: another of its kinds, with a message for a person.
    """
    target, values = _axis(options)
    own_metric(metric)  # wrong options are said before any work
    runs = {
        (recipe, value): resolve(recipe, **{**options, target: value})
        for recipe in dict.fromkeys(recipes)
        for value in dict.fromkeys(values)
    }
    prepared = Prepared(model, data, list(runs.values()), statistics=listed(statistics), progress=progress)
    curve = _Curve(prepared, target, prepared.open_evaluation(evaluation), metric)
    with prepared.progress.stage("curve", len(runs)) as advance:
        for (recipe, value), chosen in runs.items():
            curve.add(recipe, value, chosen)
            advance(1)
    return curve.report(options)


def _axis(options: dict[str, Any]) -> tuple[Axis, Sequence[float]]:
    """The field that has several values; taken out of `options`."""
    given: list[Axis] = [axis for axis in get_args(Axis) if options.get(axis) is not None]
    several = [axis for axis in given if isinstance(options[axis], Sequence)]
    if len(several) != 1 or not options[several[0]]:
        raise UsageError("say what to sweep over: one of --ratio, --units and --macs, with its values")
    return several[0], options.pop(several[0])


class _Curve:
    """Points as they are measured."""

    def __init__(self, prepared: Prepared, target: Axis, data: Any, metric: Metric | str | None) -> None:
        self._prepared, self._target, self._data = prepared, target, data
        self._how: dict[str, Any] = {"reference": prepared.model.ir, "metric": metric}
        self._how["progress"] = prepared.progress
        self._points: list[CurvePoint] = []
        self._skipped: list[Skipped] = []
        self._last: Candidate | None = None
        self._impossible: BudgetError | None = None

    def add(self, recipe: str, value: float, options: Options) -> None:
        """Prune and measure; a budget that cannot be met is noted."""
        try:
            candidate = self._prepared.prune(options)
        except BudgetError as error:
            self._impossible = error
            self._skipped.append(Skipped(name=f"{recipe} --{self._target} {value:g}", reason=str(error)))
            return
        with self._prepared.clock.stage("evaluate"):
            measured = evaluate(candidate.model, self._data, provider=options.provider, **self._how)
        self._points.append(curve_point(self._prepared, candidate, self._target, value, measured.value))
        self._last = candidate

    def report(self, given: dict[str, Any]) -> SweepReport:
        """All points, with the dense model's figure beside them."""
        if self._last is None:
            assert self._impossible is not None  # there was at least one budget
            raise self._impossible
        options = self._last.options
        with self._prepared.clock.stage("evaluate"):
            dense = evaluate(self._prepared.model.ir, self._data, provider=options.provider, **self._how)
        about = finish(self._prepared, self._last, None, None, warnings=dense.notes).report
        return SweepReport(
            metric=dense.primary,
            dense=dense.value,
            points=tuple(self._points),
            skipped=tuple(self._skipped),
            measured=self._data.description,
            options=given,
            **{name: getattr(about, name) for name in (*_SHARED, *_RUN)},
        )
