"""Ranking: every weight has a score, the best of all layers together or of each layer stay.

How many weights each layer is to keep (`wished`) serves the sweep as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune import allocation
from onnxprune.cluster import spread
from onnxprune.layers import Layer, find_layers
from onnxprune.passes.surgeon import joint_surgeon, paper_surgeon
from onnxprune.rounds import largest, n_of_m
from onnxprune.saliency import NEEDS_STATISTICS, normalised, saliency
from onnxprune.statistics import LayerStatistics, Samples, Statistics
from onnxprune.task import Array, Masks, Task


def by_ranking(task: Task, model: ir.Model, scores: dict[str, Array]) -> Masks:
    """Prune `model` in place, in as many steps as asked for, statistics redone at each; the masks.

    Args:
        task: what is asked for.
        model: a copy of the dense model, units silenced.
        scores: of the first step, by layer.
    """
    options, statistics = task.options, task.statistics
    kept: Masks = {}
    for step in range(1, options.steps + 1):
        if step > 1:
            statistics = task.gather(model) if statistics is not None else None
            layers = [layer for layer in find_layers(model.graph) if layer.name in kept]
            scores = {
                name: np.where(kept[name], score, 0)
                for name, score in scores_of(task, layers, statistics).items()
            }
        kept = _ranked(task, scores, step)
        operate(task, model, kept, statistics)
    return kept


def _ranked(task: Task, scores: dict[str, Array], step: int) -> Masks:
    if task.options.pattern is not None:
        least, of = (int(part) for part in task.options.pattern.split(":"))
        return {
            layer.name: n_of_m(
                *(scores[layer.name], task.off_units(layer), least, of),
                kernel=layer.kernel,
                staying=task.staying(layer),
            )
            for layer in task.budget.layers
        }
    goal = task.budget.at(step / task.options.steps)
    allowed = {layer.name: task.off_units(layer) for layer in task.budget.layers}
    if task.options.allocation == "global":
        return best_of_all(scores, goal, task.budget.least, allowed)
    wish = wished(task)(goal)
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


def operate(task: Task, model: ir.Model, kept: Masks, statistics: Statistics | None) -> None:
    """Cut, and let the surgeon correct what stays: weights and biases of `model` change in place."""
    surgeon = {"paper": paper_surgeon, "joint": joint_surgeon}.get(task.options.surgeon)
    layers = [layer for layer in find_layers(model.graph) if layer.name in kept]
    if surgeon is None or statistics is None:
        for layer in layers:
            matrix, bias = layer.read()
            layer.write(np.where(kept[layer.name], matrix, 0.0), bias)
        return
    damping = task.options.damping
    calls = ((*_with_bias(task, layer, kept), statistics.layers[layer.name], damping) for layer in layers)
    for layer, full in zip(layers, spread(surgeon, calls, _columns(task, layers)), strict=True):
        layer.write(full[:, :, :-1], full[:, :, -1])


def _columns(task: Task, layers: Sequence[Layer]) -> list[int] | None:
    """How large the layers are; None where memory is limited, and only one is to be worked on."""
    return None if task.options.memory is not None else [layer.d_in for layer in layers]


def _with_bias(task: Task, layer: Layer, kept: Masks) -> tuple[Array, Array]:
    """The weights with the bias as last column, and which of these stay, [groups, d_out, d_in + 1] both."""
    matrix, bias = layer.read()
    column = np.zeros(matrix.shape[:2]) if bias is None else bias
    free = np.full(column.shape, bias is not None) & ~task.silent.get(layer.name, np.False_)
    full = np.concatenate([matrix, column[:, :, None]], axis=2)
    return full, np.concatenate([kept[layer.name], free[:, :, None]], axis=2)


def wished(task: Task) -> Callable[[int], dict[str, float]]:
    """Wished fraction of each layer for a number of weights in all, by the allocation asked for."""
    sizes = task.budget.sizes
    if task.options.allocation == "uniform" or task.statistics is None:
        return lambda weights: dict.fromkeys(sizes, weights / sum(sizes.values()))
    if task.options.allocation == "global":
        scores = dense_scores(task)
        return lambda weights: {
            name: float(mask.mean()) for name, mask in best_of_all(scores, weights, task.budget.least).items()
        }
    if "curves" not in task.known:
        task.known["curves"] = _loss_curves(task, task.statistics)
    curves = task.known["curves"]
    return lambda weights: allocation.balanced(curves, sizes, weights)


def _loss_curves(task: Task, statistics: Statistics) -> dict[str, Array]:
    curves, layers = {}, task.budget.layers

    def call(layer: Layer) -> tuple[Array, LayerStatistics, bool]:
        known = statistics.layers[layer.name]
        few = isinstance(known.activations, Samples)
        matrix, bias = layer.read(layer.dtype if few else np.float64)
        return matrix, known, bias is not None

    found = spread(allocation.loss_curve, map(call, layers), _columns(task, layers))
    with task.progress.stage("allocation", len(layers)) as advance:
        for layer, curve in zip(layers, found, strict=True):
            curves[layer.name] = curve
            advance(1)
    return curves


def dense_scores(task: Task) -> dict[str, Array]:
    """Those of the dense model's weights, by layer."""
    if "scores" not in task.known:
        task.known["scores"] = scores_of(task, task.budget.layers, task.statistics)
    scores: dict[str, Array] = task.known["scores"]
    return scores


def scores_of(task: Task, layers: Iterable[Layer], statistics: Statistics | None) -> dict[str, Array]:
    """The saliency of every weight, by layer [groups, d_out, d_in]; normalised where asked for."""
    options, layers = task.options, list(layers)
    rng = np.random.default_rng(options.seed)  # of random scores, which need no statistics and are not spread
    name, damping = options.saliency, options.damping
    if options.saliency in NEEDS_STATISTICS and statistics is not None:
        known = statistics.layers
        calls = ((name, layer.read()[0], known[layer.name], damping, rng) for layer in layers)
        found = spread(saliency, calls, _columns(task, layers))
    else:
        found = (saliency(name, layer.read()[0], None, damping, rng) for layer in layers)
    scores = zip((layer.name for layer in layers), found, strict=True)
    return {layer: normalised(score) if options.normalise else score for layer, score in scores}


def best_of_all(
    scores: Mapping[str, Array], count: int, least: Mapping[str, int], allowed: Masks | None = None
) -> Masks:
    """Exactly `count` weights with the highest scores over all layers, no layer below its floor.

    Args:
        scores: by layer; -∞ where a weight is worth less than any other.
        count: how many there are to be, all if there are fewer.
        least: how many a layer keeps in any case, by layer.
        allowed: masks of what may be chosen, by layer; all of it by default.
    """
    free = allowed or {name: np.ones(score.shape, bool) for name, score in scores.items()}
    kept = {name: largest(score, free[name], least.get(name, 0)) for name, score in scores.items()}
    left = count - sum(int(np.count_nonzero(mask)) for mask in kept.values())
    if left <= 0:
        return kept
    best = [_highest_of(scores[name][free[name] & ~kept[name]], left) for name in scores]
    candidates = np.concatenate(best)
    if left >= len(candidates):
        return {name: kept[name] | free[name] for name in scores}
    candidates.partition(len(candidates) - left)
    bound = candidates[len(candidates) - left]
    return _above(scores, free, kept, bound, left)


def _highest_of(scores: Array, count: int) -> Array:
    """The `count` highest of `scores`, in any order, which is changed."""
    if count >= len(scores):
        return scores
    scores.partition(len(scores) - count)
    return scores[len(scores) - count :].copy()


def _above(scores: Mapping[str, Array], free: Masks, kept: Masks, bound: float, left: int) -> Masks:
    """`kept` and `left` more: what is above `bound`, then what equals it, by position."""
    above = {name: free[name] & ~kept[name] & (score > bound) for name, score in scores.items()}
    left -= sum(int(np.count_nonzero(mask)) for mask in above.values())
    for name, score in scores.items():
        equal = np.flatnonzero(free[name] & ~kept[name] & (score == bound))[:left]
        above[name].reshape(-1)[equal] = True
        left -= len(equal)
    return {name: kept[name] | above[name] for name in scores}
