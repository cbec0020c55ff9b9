"""Pruning of weights: from a budget to a pruned model, by ranking or by the sweep.

Ranking: score every weight, keep the best of all layers together or of each layer, let a surgeon correct the
rest. Sweep: decide how many weights each layer keeps, then walk the network (see `sweep`). Both go
geometrically in steps; ranking gathers its statistics anew at each, the sweep sees the pruned network's
inputs anyway.

Weights that end up on dead units say nothing; with `regrow` as many others come back instead, so that the
ratio is exact after the dead units are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune import allocation
from onnxprune.budget import Budget
from onnxprune.data import Data
from onnxprune.layers import Layer, find_layers
from onnxprune.model import parameters
from onnxprune.options import Options
from onnxprune.passes.dead_units import dead_mask
from onnxprune.passes.surgeon import joint_surgeon, paper_surgeon
from onnxprune.progress import Progress
from onnxprune.refit import ROUNDS, Round, geometric, largest, n_of_m, patterned
from onnxprune.saliency import NEEDS_STATISTICS, normalised, saliency
from onnxprune.statistics import Statistics
from onnxprune.sweep import sweep

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Masks = dict[str, Mask]
Gather = Callable[[ir.Model], Statistics]

_REGROWTHS = 30  # each round of regrowth frees fewer weights than the last


@dataclass
class Task:
    """All that pruning needs: the dense model, its data and statistics, the budget and the options."""

    dense: ir.Model
    data: Data
    statistics: Statistics | None
    budget: Budget
    options: Options
    gather: Gather
    progress: Progress


@dataclass
class Pruned:
    """The pruned model, its masks by layer [groups, d_out, d_in], and each layer's share of all saliency."""

    model: ir.Model
    kept: Masks
    importance: dict[str, float]


def prune(task: Task) -> Pruned:
    """Prune a copy of the dense model to the budget.

    Raises:
        StatisticsError: NaN or Inf in a layer's statistics or values, or a factor that cannot be inverted.
    """
    scores = _scores(task, task.budget.layers, task.statistics)
    total = sum(float(score.sum()) for score in scores.values()) or 1.0
    importance = {name: float(score.sum()) / total for name, score in scores.items()}
    model = task.dense.clone()
    by_sweep = task.options.surgeon == "sweep"
    kept = _by_sweep(task, model) if by_sweep else _by_ranking(task, model, scores)
    if task.options.regrow and task.options.pattern is None:
        grown = _regrown(task, model, kept, scores)
        if any((grown[name] != kept[name]).any() for name in kept):
            kept = grown
            if by_sweep:
                sweep(task.dense, model, task.data, kept, {}, **_running(task, "final refit"))
            else:  # what grew back is zero in `model` by now, and the others made up for it: start over
                model = task.dense.clone()
                _operate(task, model, kept, task.statistics)
    return Pruned(model, kept, importance)


# -- the sweep -----------------------------------------------------------------------------------------------


def _by_sweep(task: Task, model: ir.Model) -> Masks:
    kept = {layer.name: layer.read()[0] != 0 for layer in task.budget.layers}
    fractions = _fractions(task) if task.options.pattern is None else None
    for step in range(1, task.options.steps + 1):
        rounds = _pattern_rounds(task) if fractions is None else _count_rounds(task, kept, fractions, step)
        name = "sweep" if task.options.steps == 1 else f"sweep {step} of {task.options.steps}"
        swept = sweep(task.dense, model, task.data, kept, rounds, **_running(task, name))
        kept = {layer: result.kept for layer, result in swept.items()}
    return kept


def _running(task: Task, name: str) -> dict[str, Any]:
    return {"provider": task.options.provider, "progress": task.progress, "name": name}


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
    now = {name: int(mask.sum()) for name, mask in kept.items()}
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
            layer.name: n_of_m(
                scores[layer.name], np.ones(scores[layer.name].shape, bool), least, of, layer.kernel
            )
            for layer in task.budget.layers
        }
    goal = task.budget.at(step / task.options.steps)
    if task.options.allocation == "global":
        return _best_of_all(scores, goal, task.budget.least)
    wish = _fractions(task)(goal)
    counts = allocation.rounded(
        np.array([wish[name] for name in scores]),
        np.array([score.size for score in scores.values()]),
        goal,
        np.array([task.budget.least[name] for name in scores]),
        np.array([score.size for score in scores.values()]),
    )
    return {
        name: largest(score, np.ones(score.shape, dtype=bool), int(count))
        for (name, score), count in zip(scores.items(), counts, strict=True)
    }


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
        stays = np.concatenate([kept[layer.name], np.full((*column.shape, 1), bias is not None)], axis=2)
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
    layers = {layer.name: layer for layer in find_layers(model.graph) if layer.name in kept}
    goal = sum(int(mask.sum()) for mask in kept.values())
    weights = {layer.weight.name for layer in layers.values()}
    refitted = {layer.bias.name for layer in layers.values() if layer.bias is not None}
    if task.options.surgeon == "none":
        refitted = set()
    others = {name: tensor.numpy() for name, tensor in parameters(model).items() if name not in weights}
    never = {name: np.zeros(mask.shape, dtype=bool) for name, mask in kept.items()}
    for _ in range(_REGROWTHS):
        tensors = {layer.weight.name or "": layer.tensor(kept[name]) for name, layer in layers.items()}
        dead = dead_mask(model, tensors)
        freed = sum(
            int(np.count_nonzero(dead[name] & ((array != 0) | (name in refitted))))
            for name, array in others.items()
            if name in dead
        )
        for name, layer in layers.items():
            gone = layer.matrix(dead[layer.weight.name or ""]) != 0
            never[name] |= gone
            kept = {**kept, name: kept[name] & ~gone}
        missing = goal + freed - sum(int(mask.sum()) for mask in kept.values())
        if missing <= 0:
            return kept
        free = {name: np.where(never[name] | kept[name], -np.inf, scores[name]) for name in kept}
        room = sum(int(np.isfinite(score).sum()) for score in free.values())
        back = _best_of_all(free, min(missing, room), {})
        kept = {name: mask | back[name] for name, mask in kept.items()}
        if room <= missing:
            return kept
    return kept
