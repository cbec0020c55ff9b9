"""Compression to a goal: search, write, report. The model is loaded and its statistics are gathered once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxprune.aims import Goal, resolve_goal
from onnxprune.data import Data, Source
from onnxprune.errors import UsageError
from onnxprune.goals.axis import Line
from onnxprune.goals.drop import within_drop
from onnxprune.goals.found import Found
from onnxprune.goals.size import within_bytes
from onnxprune.goals.speed import within_time
from onnxprune.metric import Metric, own_metric
from onnxprune.model import Model
from onnxprune.pipeline import Result, StatisticsSource, finish, listed, measure_change, write
from onnxprune.prepared import Prepared
from onnxprune.progress import Progress


def compress_to_goal(
    model: str | Path | Model,
    data: Source | None = None,
    *,
    output: str | Path | None = None,
    evaluation: Source | None = None,
    statistics: StatisticsSource = None,
    metric: Metric | str | None = None,
    recipe: str = "default",
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Prune a model as far as a goal allows, or as little as it asks for.

    Args:
        model: as for `onnxprune.compress`, as are the others of the same name.
        data: calibration data.
        output: where to write; nothing is written if None.
        evaluation: data to measure on; `max_drop` needs it, searches on one half and is held to the other.
        statistics: from `calibrate`.
        metric: a figure of merit of one's own.
        recipe: one of `options.RECIPES`.
        progress: told of every long stage.
        options: fields of `options.Goal`, such as max_drop=0.005, and of `options.Options` but for the one
            that is searched. With `speedup`, `round_to` is "auto" if it is not given.

    Raises:
        BudgetError: the goal cannot be met; says what can.
        OnnxPruneError: another of its kinds, with a message for a person.
    """
    goal = resolve_goal({name: options.pop(name, None) for name in Goal.model_fields}, options)
    if goal is None:
        raise UsageError("no goal; give one of max_drop, max_bytes and speedup")
    if goal.max_drop is not None and evaluation is None:
        raise UsageError("--max-drop is measured on data that calibration does not see; give it with --eval")
    if goal.speedup is not None and options.get("round_to") is None:
        options["round_to"] = "auto"
    line = Line(recipe, goal.axis, options)
    own_metric(metric)  # wrong options are said before any work
    prepared = Prepared(model, data, [line.at(1.0)], statistics=listed(statistics), progress=progress)
    measured_on = prepared.open_evaluation(evaluation)
    with prepared.progress.stage(f"search for --{goal.name.replace('_', '-')}", None):
        found = _search(prepared, line, goal, measured_on, metric, output)
    change, notes = found.metric, found.warnings
    if change is None:
        change, more = measure_change(prepared, found.candidate, measured_on, metric)
        notes = (*notes, *more)
    written = None if output is None else write(prepared, found.candidate, Path(output))
    return finish(
        prepared,
        found.candidate,
        output,
        written,
        warnings=notes,
        metric=change,
        goal=found.goal,
        curve=found.curve,
    )


def _search(
    prepared: Prepared,
    line: Line,
    goal: Goal,
    measured_on: Data,
    metric: Metric | str | None,
    output: str | Path | None,
) -> Found:
    if goal.max_drop is not None:
        return within_drop(prepared, line, goal, measured_on, metric)
    if goal.max_bytes is not None:
        return within_bytes(prepared, line, goal, Path(output or "model.onnx").name)
    return within_time(prepared, line, goal)
