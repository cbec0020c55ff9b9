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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune import allocation
from onnxprune.budget import Budget, make_budget
from onnxprune.cut import Cut, remove_cut
from onnxprune.data import Data
from onnxprune.layers import Layer, find_layers
from onnxprune.model import parameters
from onnxprune.options import Options
from onnxprune.passes.dead_units import dead_mask
from onnxprune.passes.replace import give_biases, replace_units
from onnxprune.passes.surgeon import joint_surgeon, paper_surgeon
from onnxprune.plan import Plan
from onnxprune.progress import Progress
from onnxprune.refit import ROUNDS, Round, geometric, largest, n_of_m, patterned
from onnxprune.saliency import NEEDS_STATISTICS, normalised, saliency
from onnxprune.statistics import Statistics
from onnxprune.sweep import sweep

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Masks = dict[str, Mask]
Gather = Callable[[ir.Model], Statistics]

_NO_BUDGET = Budget((), 0, 0, 0, {}, {})  # where only units are pruned
_REGROWTHS = 30  # each round of regrowth frees fewer weights than the last


@dataclass
class Task:
    """All that pruning needs: the dense model, its data and statistics, the budget and the options.

    `cut` has the units that go, `allowed` and `silent` say of every layer that is refitted which weights may
    stay, bool [groups, d_out, d_in], and which rows make units that go, bool [groups, d_out].
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

    def may_stay(self, layer: Layer) -> Mask:
        """The weights of a layer of the dense model that are not zero and on no unit that goes."""
        mask: Mask = layer.read()[0] != 0
        return mask & self.allowed[layer.name] if layer.name in self.allowed else mask


@dataclass
class Pruned:
    """The pruned model, its masks by layer [groups, d_out, d_in], and each layer's share of all saliency.

    `without_mean` are layers that lost units, but can have no bias to make up for them.
    """

    model: ir.Model
    kept: Masks
    importance: dict[str, float]
    without_mean: list[str] = field(default_factory=list)


def make_task(
    dense: ir.Model,
    data: Data,
    statistics: Statistics | None,
    layers: Sequence[Layer],
    cut: Cut | None,
    options: Options,
    gather: Gather,
    progress: Progress,
) -> Task:
    """The task of pruning `layers` of the dense model to the budget of `options`, the units of `cut` first.

    Raises:
        BudgetError: what is never pruned exceeds the ratio already.
    """
    slim = None
    task = Task(dense, data, statistics, _NO_BUDGET, options, gather, progress, cut)
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
    scores = _scores(task, task.budget.layers, task.statistics) if task.options.prunes_weights else {}
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
    return Pruned(model, kept, importance, without)


def _without_weights(task: Task, model: ir.Model, scores: dict[str, Array]) -> Masks:
    by_sweep = task.options.surgeon == "sweep"
    dense = model.clone()
    kept = _by_sweep(task, model) if by_sweep else _by_ranking(task, model, scores)
    if not task.options.regrow or task.options.pattern is not None:
        return kept
    grown = _regrown(task, model, kept, scores)
    if all((grown[name] == kept[name]).all() for name in kept):
        return kept
    if by_sweep:
        sweep(task.dense, model, task.data, grown, {}, **_running(task, "final refit"))
    else:  # what grew back is zero in `model` by now, and the others made up for it: start over
        for old, new in zip(find_layers(model.graph), find_layers(dense.graph), strict=True):
            old.write(*new.read())
        _operate(task, model, grown, task.statistics)
    return grown


# -- units ---------------------------------------------------------------------------------------------------


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
        silent = {name: silent[name] for name in task.silent}
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


# -- the sweep -----------------------------------------------------------------------------------------------


def _by_sweep(task: Task, model: ir.Model) -> Masks:
    kept = _start(task)
    fractions = _fractions(task) if task.options.pattern is None else None
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
    given = {"provider": task.options.provider, "progress": task.progress, "name": name}
    return {**given, "silent": task.silent}


def _fractions(task: Task) -> Callable[[int], dict[str, float]]:
    """Wished fraction of each layer for a number of weights in all, by the allocation asked for."""
    sizes = task.budget.sizes
    if task.options.allocation == "uniform" or task.statistics is None:
        return lambda weights: dict.fromkeys(sizes, weights / sum(sizes.values()))
    if task.options.allocation == "global":
        scores = _scores(task, task.budget.layers, task.statistics)
        return lambda weights: {
            name: float(mask.mean())
            for name, mask in _best_of_all(scores, weights, task.budget.least).items()
        }
    curves = {}
    with task.progress.stage("allocation", len(sizes)) as advance:
        for layer in task.budget.layers:
            matrix, bias = layer.read()
            curves[layer.name] = allocation.loss_curve(
                matrix, task.statistics.layers[layer.name], bias is not None
            )
            advance(1)
    return lambda weights: allocation.balanced(curves, sizes, weights)


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
    each = max(1, ROUNDS // task.options.steps)
    chosen = dict(zip(names, counts.tolist(), strict=True))
    return {name: geometric(now[name], count, each) for name, count in chosen.items() if count < now[name]}


def _pattern_rounds(task: Task) -> dict[str, list[Round]]:
    kept, of = (int(part) for part in (task.options.pattern or "").split(":"))
    return {layer.name: patterned(kept, of, layer.kernel) for layer in task.budget.layers}


# -- ranking -------------------------------------------------------------------------------------------------


def _by_ranking(task: Task, model: ir.Model, scores: dict[str, Array]) -> Masks:
    options, statistics = task.options, task.statistics
    kept: Masks = {}
    for step in range(1, options.steps + 1):
        if step > 1:
            statistics = task.gather(model) if statistics is not None else None
            layers = [layer for layer in find_layers(model.graph) if layer.name in kept]
            scores = {
                name: np.where(kept[name], score, 0)
                for name, score in _scores(task, layers, statistics).items()
            }
        kept = _ranked(task, scores, step)
        _operate(task, model, kept, statistics)
    return kept


def _ranked(task: Task, scores: dict[str, Array], step: int) -> Masks:
    if task.options.pattern is not None:
        least, of = (int(part) for part in task.options.pattern.split(":"))
        return {
            layer.name: n_of_m(scores[layer.name], _allowed(task, layer), least, of, layer.kernel)
            for layer in task.budget.layers
        }
    goal = task.budget.at(step / task.options.steps)
    allowed = {layer.name: _allowed(task, layer) for layer in task.budget.layers}
    if task.options.allocation == "global":
        free = {name: np.where(allowed[name], score, -np.inf) for name, score in scores.items()}
        return _best_of_all(free, goal, task.budget.least)
    wish = _fractions(task)(goal)
    sizes = np.array([task.budget.sizes[name] for name in scores])
    counts = allocation.rounded(
        np.array([wish[name] for name in scores]),
        sizes,
        goal,
        np.array([task.budget.least[name] for name in scores]),
        sizes,
    )
    return {
        name: largest(score, allowed[name], int(count))
        for (name, score), count in zip(scores.items(), counts, strict=True)
    }


def _allowed(task: Task, layer: Layer) -> Mask:
    everything = np.ones((layer.groups, layer.d_out, layer.d_in), dtype=bool)
    return task.allowed.get(layer.name, everything)


def _best_of_all(scores: Mapping[str, Array], count: int, least: Mapping[str, int]) -> Masks:
    """Exactly `count` weights with the highest scores over all layers, no layer below its floor."""
    flat = {name: score.reshape(-1) for name, score in scores.items()}
    ranked = {name: np.argsort(-score, kind="stable") for name, score in flat.items()}
    lifted = []
    for name, score in flat.items():
        raised = score.astype(np.float64).copy()
        raised[ranked[name][: least.get(name, 0)]] = np.inf
        lifted.append(raised)
    joined = np.concatenate(lifted)
    chosen = np.zeros(joined.size, dtype=bool)
    chosen[np.argsort(-joined, kind="stable")[:count]] = True
    bounds = np.cumsum([score.size for score in flat.values()])[:-1]
    parts = np.split(chosen, bounds)
    return {name: part.reshape(scores[name].shape) for name, part in zip(flat, parts, strict=True)}


def _operate(task: Task, model: ir.Model, kept: Masks, statistics: Statistics | None) -> None:
    """Cut, and let the surgeon correct what stays: weights and biases of `model` change in place."""
    surgeon = {"paper": paper_surgeon, "joint": joint_surgeon}.get(task.options.surgeon)
    for layer in find_layers(model.graph):
        if layer.name not in kept:
            continue
        matrix, bias = layer.read()
        if surgeon is None or statistics is None:
            layer.write(np.where(kept[layer.name], matrix, 0.0), bias)
            continue
        column = np.zeros(matrix.shape[:2]) if bias is None else bias
        full = np.concatenate([matrix, column[:, :, None]], axis=2)
        free = np.full(column.shape, bias is not None) & ~task.silent.get(layer.name, np.False_)
        stays = np.concatenate([kept[layer.name], free[:, :, None]], axis=2)
        full = surgeon(full, stays, statistics.layers[layer.name], task.options.damping)
        layer.write(full[:, :, :-1], full[:, :, -1])


def _scores(
    task: Task, layers: tuple[Layer, ...] | list[Layer], statistics: Statistics | None
) -> dict[str, Array]:
    options = task.options
    rng = np.random.default_rng(options.seed)
    needs = options.saliency in NEEDS_STATISTICS
    scores = {}
    for layer in layers:
        known = statistics.layers[layer.name] if needs and statistics is not None else None
        score = saliency(options.saliency, layer.read()[0], known, options.damping, rng)
        scores[layer.name] = normalised(score) if options.normalise else score
    return scores


# -- regrowth ------------------------------------------------------------------------------------------------


def _regrown(task: Task, model: ir.Model, kept: Masks, scores: dict[str, Array]) -> Masks:
    """Masks with the same number of parameters in use, none of them on a dead unit.

    What dies is taken out of the masks, and as many of the best weights that may live come back, until
    nothing dies.
    """
    layers = {layer.name: layer for layer in find_layers(model.graph) if layer.name in scores}
    whole, kept = kept, {name: kept[name] for name in scores}
    goal = sum(int(mask.sum()) for mask in kept.values())
    weights = {layer.weight.name for layer in layers.values()}
    refitted = {layer.bias.name for layer in layers.values() if layer.bias is not None}
    if task.options.surgeon == "none":
        refitted = set()
    others = {name: tensor.numpy() for name, tensor in parameters(model).items() if name not in weights}
    never = {name: ~_allowed(task, layer) for name, layer in layers.items()}
    gone_before = _dead_by_units(task)
    for _ in range(_REGROWTHS):
        tensors = {layer.weight.name or "": layer.tensor(kept[name]) for name, layer in layers.items()}
        dead = dead_mask(model, tensors)
        freed = sum(
            int(
                np.count_nonzero(
                    _freed(dead[name], gone_before.get(name)) & ((array != 0) | (name in refitted))
                )
            )
            for name, array in others.items()
            if name in dead
        )
        for name, layer in layers.items():
            gone = layer.matrix(dead[layer.weight.name or ""]) != 0
            never[name] |= gone
            kept = {**kept, name: kept[name] & ~gone}
        missing = goal + freed - sum(int(mask.sum()) for mask in kept.values())
        if missing <= 0:
            break
        free = {name: np.where(never[name] | kept[name], -np.inf, scores[name]) for name in kept}
        room = sum(int(np.isfinite(score).sum()) for score in free.values())
        back = _best_of_all(free, min(missing, room), {})
        kept = {name: mask | back[name] for name, mask in kept.items()}
        if room <= missing:
            break
    return whole | kept


def _freed(dead: Mask, before: Mask | None) -> Mask:
    return dead if before is None else dead & ~before


def _dead_by_units(task: Task) -> Masks:
    """What goes with the units of the cut: the budget never counted it."""
    layers = find_layers(task.dense.graph)
    tensors = {layer.weight.name or "": layer.tensor(_allowed(task, layer)) for layer in layers}
    return dead_mask(task.dense, tensors) if task.cut is not None else {}
