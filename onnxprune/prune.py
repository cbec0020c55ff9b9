"""Pruning: from a cut and a budget to a pruned model; units first, then weights, by ranking or by the sweep.

Units: their weights become zero, and what replaces them is folded in (see `passes.replace`), or the sweep
refits what reads them. They leave the graph later, which then changes nothing more.

Ranking: score every weight, keep the best of all layers together or of each layer, let a surgeon correct the
rest. Sweep: decide how many weights each layer keeps, then walk the network (see `sweep`). Both go
geometrically in steps; ranking gathers its statistics anew at each, the sweep sees the pruned network's
inputs anyway.

Weights that end up on dead units say nothing; with `regrow` as many others come back instead, so that the
ratio is exact after the dead units are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune import allocation
from onnxprune.cut import Cut
from onnxprune.layers import find_layers
from onnxprune.options import Options
from onnxprune.passes.replace import give_biases, replace_units
from onnxprune.plan import Plan
from onnxprune.ranking import by_ranking, dense_scores, operate, wished
from onnxprune.regrowth import regrown
from onnxprune.room import for_sweep
from onnxprune.rounds import Round, geometric, patterned
from onnxprune.sweep import sweep
from onnxprune.task import Array, Masks, Task


@dataclass
class Pruned:
    """The pruned model, its masks by layer [groups, d_out, d_in], and each layer's share of all saliency.

    `scores` are those of the dense model's weights, by layer, where weights were pruned. `without_mean` are
    layers that lost units, but can have no bias to make up for them.
    """

    model: ir.Model
    kept: Masks
    importance: dict[str, float]
    scores: dict[str, Array] = field(default_factory=dict)
    without_mean: list[str] = field(default_factory=list)


def make_plan(sha256: str, options: Options, pruned: Pruned, cut: Cut | None) -> Plan:
    """What was decided, as data."""
    units = {}
    if cut is not None:
        gone = zip(cut.families.families, cut.gone(), strict=True)
        units = {family.name: np.sort(places).tolist() for family, places in gone}
    return Plan(sha256, options.model_dump(mode="json"), pruned.kept, pruned.importance, units)


def prune(task: Task) -> Pruned:
    """Prune a copy of the dense model to the budget.

    Raises:
        StatisticsError: NaN or Inf in a layer's statistics or values, or a factor that cannot be inverted.
    """
    scores = dense_scores(task) if task.options.prunes_weights else {}
    total = sum(float(score.sum()) for score in scores.values()) or 1.0
    importance = {name: float(score.sum()) / total for name, score in scores.items()}
    without = []
    if task.cut is not None:
        task = replace(task, dense=task.dense.clone())
        without = give_biases(task.dense, task.allowed)
    model = task.dense.clone()
    kept = _without_units(task, model) if task.cut is not None else {}
    if task.options.prunes_weights:
        kept |= _without_weights(task, model, scores)
    return Pruned(model, kept, importance, scores, without)


def _without_weights(task: Task, model: ir.Model, scores: dict[str, Array]) -> Masks:
    by_sweep = task.options.surgeon == "sweep"
    dense = model.clone()
    kept = _by_sweep(task, model) if by_sweep else by_ranking(task, model, scores)
    if not task.options.regrow or task.options.pattern is not None:
        return kept
    grown = regrown(task, model, kept, scores)
    if all((grown[name] == kept[name]).all() for name in kept):
        return kept
    if by_sweep:
        sweep(task.dense, model, task.data, grown, {}, **_running(task, "final refit"))
    else:  # what grew back is zero in `model` by now, and the others made up for it: start over
        for old, new in zip(find_layers(model.graph), find_layers(dense.graph), strict=True):
            old.write(*new.read())
        operate(task, model, grown, task.statistics)
    return grown


def _without_units(task: Task, model: ir.Model) -> Masks:
    """Silence the units of the cut in `model`, in as many steps as asked for; the masks of all layers."""
    assert task.cut is not None
    refitted = task.options.replace == "linear"
    if refitted and task.options.prunes_weights and task.options.surgeon == "sweep":
        return {}  # one sweep does both
    kept: Masks = {}
    statistics = task.statistics
    for step in range(1, task.options.steps + 1):
        masks, silent = task.cut.masks(step / task.options.steps)
        silent = {name: silent.get(name, whole) for name, whole in task.silent.items()}
        layers = [layer for layer in find_layers(task.dense.graph) if layer.name in task.allowed]
        kept = {
            layer.name: (layer.read()[0] != 0) & masks.get(layer.name, task.allowed[layer.name])
            for layer in layers
        }
        name = "units" if task.options.steps == 1 else f"units {step} of {task.options.steps}"
        if refitted:
            running = {**_running(task, name), "silent": silent}
            sweep(task.dense, model, task.data, kept, {}, **running)
            continue
        if task.options.replace == "zero":
            replace_units(model, kept, silent)
            continue
        if step > 1:
            statistics = task.gather(model)
        assert statistics is not None  # gathered, since means are asked for
        replace_units(model, kept, silent, {name: known.mean() for name, known in statistics.layers.items()})
    return kept


def _by_sweep(task: Task, model: ir.Model) -> Masks:
    kept = _start(task)
    fractions = wished(task) if task.options.pattern is None else None
    for step in range(1, task.options.steps + 1):
        rounds = _pattern_rounds(task) if fractions is None else _count_rounds(task, kept, fractions, step)
        name = "sweep" if task.options.steps == 1 else f"sweep {step} of {task.options.steps}"
        swept = sweep(task.dense, model, task.data, kept, rounds, **_running(task, name))
        kept = {layer: result.kept for layer, result in swept.items()}
    return kept


def _start(task: Task) -> Masks:
    """What may stay of the layers to prune, and of those that units go from."""
    pruned = {layer.name for layer in task.budget.layers}
    layers = [layer for layer in find_layers(task.dense.graph) if layer.name in pruned | task.allowed.keys()]
    return {layer.name: task.may_stay(layer) for layer in layers}


def _running(task: Task, name: str) -> dict[str, Any]:
    given: dict[str, Any] = {"provider": task.options.provider, "progress": task.progress, "name": name}
    if task.options.memory is not None:
        given["limits"] = for_sweep(find_layers(task.dense.graph).layers, task.data, task.options.memory)
    return {**given, "silent": task.silent, "effort": task.effort}


def _count_rounds(
    task: Task, kept: Masks, fractions: Callable[[int], dict[str, float]], step: int
) -> dict[str, list[Round]]:
    now = {name: int(kept[name].sum()) for name in task.budget.sizes}
    goal = min(task.budget.at(step / task.options.steps), sum(now.values()))
    wish = fractions(goal)
    names = list(now)
    counts = allocation.rounded(
        np.array([wish[name] for name in names]),
        np.array([task.budget.sizes[name] for name in names]),
        goal,
        np.array([min(task.budget.least[name], now[name]) for name in names]),
        np.array([now[name] for name in names]),
    )
    each = max(1, task.effort.rounds // task.options.steps)
    chosen = dict(zip(names, counts.tolist(), strict=True))
    return {name: geometric(now[name], count, each) for name, count in chosen.items() if count < now[name]}


def _pattern_rounds(task: Task) -> dict[str, list[Round]]:
    kept, of = (int(part) for part in (task.options.pattern or "").split(":"))
    return {
        layer.name: patterned(kept, of, layer.kernel, task.staying(layer)) for layer in task.budget.layers
    }
