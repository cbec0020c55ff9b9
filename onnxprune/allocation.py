"""Allocation: how many weights each layer keeps under one budget for all.

    global     rank all weights of all layers by saliency       MLPrune: normalised within each layer first
    uniform    the same fraction in every layer
    balanced   geometric mean, three to one, of the fractions with the least loss after refit and of uniform

A ranking by single-weight saliency does not fit a surgeon that repairs: it counts what one weight costs
alone. `balanced` therefore refits every layer at a few densities, against the dense network's own values, and
measures the loss with its Kronecker factors, ½ T tr(G Δ A Δᵀ). Minimising the sum of these curves still
treats all layers alike, although the sweep repairs early errors later and late ones never; a quarter of the
way to uniform, geometrically, corrects that (figures: docs/design.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.dual import RowProblem, least_squares, pays
from onnxprune.refit import FEW_ROWS, RIDGE, Problem, choose, some_outputs
from onnxprune.rounds import geometric
from onnxprune.statistics import Gram, LayerStatistics, Samples

Array = npt.NDArray[Any]

DENSITIES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
SMALL = 0.02  # share of the budget that the smallest layers may take whole
# With few rows a column a curve measured on the rows it was fitted to says nothing costs anything; a strong
# pull to the dense weights keeps it honest.
_FEW_RIDGE = 1.0
_TRUST = 0.75  # exponent of the least-loss fraction in `balanced`; the rest is uniform
_ROUNDS_BETWEEN = 3  # rounds from one density of a curve to the next
_OUTPUTS = 1024  # output units that a curve is measured on at most; at 128 of 500 it is off by 15 to 40 %


def rounded(fractions: Array, sizes: Array, budget: int, least: Array, most: Array) -> npt.NDArray[np.int64]:
    """Whole numbers of weights with the sum `budget`, in proportion to `fractions` · `sizes`, within bounds.

    Args:
        fractions: wished fraction of each layer; only their ratios matter.
        sizes: weights of each layer.
        budget: how many stay in all.
        least: lower bounds, in weights.
        most: upper bounds, in weights.

    Returns:
        int64 [layers]; the sum is as near to the budget as the bounds let it be.
    """
    wish = np.maximum(fractions * sizes, 1e-12)
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        over = np.clip(wish * np.exp(middle), least, most).sum() > budget
        low, high = (low, middle) if over else (middle, high)
    exact = np.clip(wish * np.exp(low), least, most)
    counts: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    room = (most - counts) > 0
    order = np.argsort(np.where(room, counts - exact, np.inf), kind="stable")
    while counts.sum() < budget and room.any():
        short = int(budget - counts.sum())
        counts[order[: min(short, int(room.sum()))]] += 1
        room = (most - counts) > 0
        order = np.argsort(np.where(room, counts - exact, np.inf), kind="stable")
    return counts


def loss_curve(weights: Array, statistics: LayerStatistics, has_bias: bool) -> Array:
    """Loss ½ T tr(G Δ A Δᵀ) of one layer after refit at `DENSITIES`; G is the identity where there is none.

    Args:
        weights: [groups, d_out, d_in].
        statistics: A and G of the dense network.
        has_bias: whether a bias may follow.

    Returns:
        float64, one entry a density, in the order of `DENSITIES`.
    """
    every = weights.shape[1]
    outputs = some_outputs(every, _OUTPUTS)
    weights = weights[:, outputs]
    problem = dense_problem(weights, statistics, has_bias)
    few = statistics.activations.weight < FEW_ROWS * weights.shape[2]
    refit = least_squares(problem, weights, _FEW_RIDGE if few else RIDGE)
    kept, current = np.ones(weights.shape, dtype=bool), weights
    losses = []
    for density in reversed(DENSITIES):
        count = max(1, round(density * weights.size))
        kept, current = choose(refit, current, kept, geometric(int(kept.sum()), count, _ROUNDS_BETWEEN))
        products = problem.products(current - weights)
        losses.append(0.5 * statistics.positions * _traced(statistics.gradients, products, outputs, every))
    return np.array(losses[::-1])


def _traced(gradients: Gram | None, products: Array, outputs: npt.NDArray[np.int64], every: int) -> float:
    """tr(G P), P being Δ A Δᵀ [groups, d_out, d_out], from what P has of the `outputs` drawn; not below zero.

    Unbiased: of the diagonal drawn / every is seen, of the pairs off it their square, nearly.
    """
    diagonal, drawn = np.einsum("gii->gi", products), len(outputs)
    if gradients is None:
        return float(diagonal.sum()) * every / drawn
    known = gradients.total[:, outputs[:, None], outputs] / gradients.weight
    own = float(np.einsum("gii,gi->", known, diagonal))
    pairs = float(np.einsum("gij,gij->", known, products)) - own
    return max(own * every / drawn + pairs * (every * (every - 1)) / max(drawn * (drawn - 1), 1), 0.0)


def dense_problem(weights: Array, statistics: LayerStatistics, has_bias: bool) -> Problem | RowProblem:
    """The refit of a layer to its own dense values, T = W X; `weights` are W [groups, d_out, d_in]."""
    mean = statistics.mean() * has_bias
    gram = statistics.centred(mean)
    mean_t = np.einsum("goi,gi->go", weights, mean)
    if isinstance(gram, Samples) and not pays(*gram.rows.shape[1:]):
        gram = Gram(gram.mean() * gram.weight, gram.weight)
    if isinstance(gram, Samples):
        targets = (gram.rows @ weights.transpose(0, 2, 1)).astype(np.float64, copy=False)
        return RowProblem(gram.rows, targets, gram.weight, mean, mean_t)
    cross = gram.times(weights)
    variance = np.einsum("goi,goi->go", weights, cross)
    return Problem(gram, cross, mean, mean_t, variance)


def least_loss(curves: Sequence[Array], sizes: Array, budget: int) -> Array:
    """Fractions that minimise the sum of the curves under the budget: equal marginal loss a weight.

    Curves are interpolated in log density and log loss, and extended to lower densities by their last slope.

    Args:
        curves: of each layer, the losses at `DENSITIES`.
        sizes: weights of each layer, float64 [layers].
        budget: how many stay in all, at most.

    Returns:
        float64 [layers], each in (0, 1].
    """
    grid = np.exp(np.linspace(np.log(DENSITIES[0] / 8), 0.0, 400))
    tables = np.stack([_interpolated(curve, grid) for curve in curves])
    low, high = -80.0, 80.0
    chosen = np.full(len(sizes), grid[0])
    for _ in range(100):
        price = (low + high) / 2
        cheapest = grid[np.argmin(tables + np.exp(price) * grid * sizes[:, None], axis=1)]
        if float((cheapest * sizes).sum()) > budget:
            low = price
        else:
            high, chosen = price, cheapest
    return chosen


def _interpolated(curve: Array, grid: Array) -> Array:
    floor = max(float(curve.max()), 1e-30) * 1e-9
    densities = np.log(np.array([*DENSITIES, 1.0]))
    losses = np.log(np.maximum(np.array([*curve, curve[-1] * 1e-3]), floor))
    losses = np.minimum.accumulate(losses)  # refits are approximate; more weights never cost
    slope = (losses[1] - losses[0]) / (densities[1] - densities[0])
    below = losses[0] + slope * (np.log(grid) - densities[0])
    table: Array = np.exp(
        np.where(np.log(grid) < densities[0], below, np.interp(np.log(grid), densities, losses))
    )
    return table


def balanced(curves: Mapping[str, Array], sizes: Mapping[str, int], budget: int) -> dict[str, float]:
    """least-loss^¾ · uniform^¼ by layer; ∞, that is all of it, for the smallest layers."""
    small = smallest(sizes, budget)
    names = [name for name in curves if name not in small]
    counted = np.array([sizes[name] for name in names], dtype=np.float64)
    left = budget - sum(sizes[name] for name in small)
    best = least_loss([curves[name] for name in names], counted, left)
    fractions = best**_TRUST * (left / counted.sum()) ** (1 - _TRUST)
    return {name: math.inf for name in small} | dict(zip(names, fractions.tolist(), strict=True))


def smallest(sizes: Mapping[str, int], budget: int) -> set[str]:
    """Layers that all together take at most `SMALL` of the budget: pruning them gains nothing."""
    ascending = sorted(sizes, key=lambda name: sizes[name])
    taken = np.cumsum([sizes[name] for name in ascending])
    return {name for name, total in zip(ascending, taken, strict=True) if total <= SMALL * budget}
