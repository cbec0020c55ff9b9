"""Shares: how many units each family keeps under one budget for all, and so which units go.

    layer     the same fraction of every family, or the same number
    global    least loss first, by what a unit is worth in the budget's coin: MACs, or units

The coin changes as units leave (MACs are rows times columns), so that families are cut a chunk at a time,
always the one that loses least for what it saves; chunks are corners of each family's convex hull, since a
family that costs much at first may cost little after. As with weights (see `allocation`), the answer is
moved geometrically towards the uniform one: the costs are the dense network's, and do not see that errors
compound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import BudgetError
from onnxprune.saliency.units import Order
from onnxprune.units.families import Costs

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Spent = Callable[[Array], float]  # the budget's coin, of so many kept units a family
Slope = Callable[[Array], Array]  # what one unit more of each family adds to it

_TRUST = 0.75  # exponent of the least-loss fraction; the rest is uniform


@dataclass(frozen=True)
class Limits:
    """`allowed`: the numbers of units each family may keep, ascending, int64 each; the last is all it may.

    `costs` has what each of them is worth, in units: less than linear where a machine hardly runs a
    narrower layer faster. By default the numbers themselves.
    """

    sizes: Counts
    allowed: tuple[Counts, ...]
    costs: tuple[Array, ...] = ()

    def floor(self) -> Counts:
        """The fewest of each family."""
        return np.array([numbers[0] for numbers in self.allowed])

    def ceiling(self) -> Counts:
        """The most of each family: all of it, or what is settled."""
        return np.array([numbers[-1] for numbers in self.allowed])

    def round(self, kept: Array) -> Counts:
        """The nearest allowed numbers, of two the larger."""
        pairs = zip(self.allowed, kept, strict=True)
        return np.array([n[len(n) - 1 - int(np.argmin(np.abs(n - k)[::-1]))] for n, k in pairs])

    def below(self, kept: Array) -> Counts:
        """The next smaller allowed number of each family, or its floor."""
        pairs = zip(self.allowed, kept, strict=True)
        return np.array([n[max(0, int(np.searchsorted(n, k, side="left")) - 1)] for n, k in pairs])

    def above(self, kept: Array) -> Counts:
        """The next larger allowed number of each family, or its ceiling."""
        pairs = zip(self.allowed, kept, strict=True)
        return np.array([n[min(len(n) - 1, int(np.searchsorted(n, k, side="right")))] for n, k in pairs])

    def worth(self, kept: Array) -> Array:
        """What so many units of each family cost, in units."""
        if not self.costs:
            return kept.astype(np.float64)
        known = zip(kept, self.allowed, self.costs, strict=True)
        return np.array([np.interp(k, numbers, costs) for k, numbers, costs in known])


def steps(size: int, least: int = 1, step: int = 1, pinned: int | None = None) -> Counts:
    """The numbers a family of `size` may keep: multiples of `step` from `least` up, and all; or `pinned`."""
    if pinned is not None:
        return np.array([pinned])
    first = min(size, -(-least // step) * step)
    return np.unique([*range(first, size, step), size])


def in_every_family(limits: Limits, amount: float) -> Counts:
    """Kept units where each family loses the fraction `amount`, or, from 1 upwards, that number."""
    gone = np.rint(limits.sizes * amount) if amount < 1 else np.full(limits.sizes.shape, amount)
    return limits.round(limits.sizes - gone)


def over_all(limits: Limits, orders: Sequence[Order], amount: float) -> Counts:
    """Kept units where all families together lose the fraction `amount`, or that number, with least loss."""
    total = int(limits.sizes.sum())
    goal = total - (round(total * amount) if amount < 1 else int(amount))
    if goal < limits.floor().sum():
        raise BudgetError(
            f"--units {amount:g} leaves {goal:,} of {total:,} units, but {int(limits.floor().sum()):,} must "
            "stay; ask for less"
        )
    coins = np.ones(len(orders))
    return _shared(limits, orders, goal, lambda kept: float(kept.sum()), lambda _: coins)


def to_macs(limits: Limits, orders: Sequence[Order], costs: Costs, share: float) -> Counts:
    """Kept units with at most `share` of the dense MACs, with least loss for what is saved.

    Raises:
        BudgetError: all that may go does not save so much; says how much it does.
    """
    least = costs.macs(limits.floor().astype(np.float64)) / costs.dense
    if least > share:
        raise BudgetError(
            f"--macs {share:g} cannot be met: with every unit gone that may go, "
            f"{np.ceil(1e4 * least) / 1e4:g} of the MACs remain; ask for less"
        )
    return _shared(limits, orders, share * costs.dense, costs.macs, costs.slope)


def _shared(limits: Limits, orders: Sequence[Order], goal: float, spent: Spent, slope: Slope) -> Counts:
    """Least-loss fractions, moved towards uniform, scaled and rounded to the goal."""
    sizes = limits.sizes.astype(np.float64)
    bounds = limits.floor().astype(np.float64), limits.ceiling().astype(np.float64)
    best = _greedy(bounds[1], _hulls(limits, orders), goal, spent, slope)
    uniform = _scaled(sizes, bounds, goal, spent) / sizes
    mixed = (best / sizes) ** _TRUST * uniform ** (1 - _TRUST)
    kept = limits.round(_scaled(mixed * sizes, bounds, goal, spent))
    return _filled(limits, _trimmed(limits, kept, orders, goal, spent, slope), orders, goal, spent, slope)


def _greedy(most: Array, hulls: Sequence[_Hull], goal: float, spent: Spent, slope: Slope) -> Array:
    """Kept units on the way down from `most`, always the corner that loses least for what it saves."""
    kept, corner = most.copy(), [0] * len(hulls)
    prices = np.array([hull.price(0) for hull in hulls])
    while spent(kept) > goal and np.isfinite(prices).any():
        chosen = int(np.argmin(prices / np.maximum(slope(kept), 1e-300)))
        corner[chosen] += 1
        kept[chosen] = hulls[chosen].kept[corner[chosen]]
        prices[chosen] = hulls[chosen].price(corner[chosen])
    return kept


@dataclass(frozen=True)
class _Hull:
    """Corners of the lower convex hull of loss over what is saved, in units, from all kept to the fewest."""

    kept: Counts
    saved: Array
    loss: Array

    def price(self, corner: int) -> float:
        """Loss per unit saved from this corner to the next."""
        if corner + 1 >= len(self.kept):
            return np.inf
        rise = self.loss[corner + 1] - self.loss[corner]
        return float(rise / (self.saved[corner + 1] - self.saved[corner]))


def _hulls(limits: Limits, orders: Sequence[Order]) -> list[_Hull]:
    """One a family, with further points on it, at most a sixteenth of the family apart."""
    hulls = []
    for place, order in enumerate(orders):
        kept = limits.allowed[place][::-1]
        costs = limits.costs[place][::-1] if limits.costs else kept
        saved = (costs[0] - costs).astype(np.float64)
        loss = order.loss[limits.sizes[place] - kept]
        corners = _corners(saved, loss)
        points = np.unique([*corners, *np.linspace(0, len(kept) - 1, 17).astype(int)])
        hulls.append(_Hull(kept[points], saved[points], np.interp(points, corners, loss[corners])))
    return hulls


def _corners(x: Array, y: Array) -> list[int]:
    """Indices of the lower convex hull of the points (x, y), x ascending."""
    corners = [0]
    for k in range(1, len(x)):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (y[b] - y[a]) * (x[k] - x[a]) < (y[k] - y[a]) * (x[b] - x[a]):
                break
            corners.pop()
        corners.append(k)
    return corners


def _scaled(wished: Array, bounds: tuple[Array, Array], goal: float, spent: Spent) -> Array:
    """`wished` times the largest number that keeps within the goal."""
    low, high = -60.0, 60.0
    for _ in range(100):
        middle = (low + high) / 2
        over = spent(np.clip(wished * np.exp(middle), *bounds)) > goal
        low, high = (low, middle) if over else (middle, high)
    scaled: Array = np.clip(wished * np.exp(low), *bounds)
    return scaled


def _trimmed(
    limits: Limits, kept: Counts, orders: Sequence[Order], goal: float, spent: Spent, slope: Slope
) -> Counts:
    """Where rounding went over the goal, units are given up with least loss for what that saves."""
    kept = kept.copy()
    while spent(kept.astype(np.float64)) > goal and (kept > limits.floor()).any():
        down = limits.below(kept)
        rise = _losses(limits, orders, down) - _losses(limits, orders, kept)
        saved = slope(kept.astype(np.float64)) * (limits.worth(kept) - limits.worth(down))
        chosen = int(np.argmin(np.where(down < kept, rise / np.maximum(saved, 1e-300), np.inf)))
        kept[chosen] = down[chosen]
    return kept


def _filled(
    limits: Limits, kept: Counts, orders: Sequence[Order], goal: float, spent: Spent, slope: Slope
) -> Counts:
    """Spare room is used where that gains most for what it costs."""
    kept = kept.copy()
    while True:
        up = limits.above(kept)
        fits = np.array(
            [
                number > now and _with(kept, f, number, spent) <= goal
                for f, (number, now) in enumerate(zip(up, kept, strict=True))
            ]
        )
        if not fits.any():
            return kept
        gain = _losses(limits, orders, kept) - _losses(limits, orders, up)
        cost = slope(kept.astype(np.float64)) * (limits.worth(up) - limits.worth(kept))
        chosen = int(np.argmax(np.where(fits, gain / np.maximum(cost, 1e-300), -np.inf)))
        kept[chosen] = up[chosen]


def _losses(limits: Limits, orders: Sequence[Order], kept: Counts) -> Array:
    return np.array(
        [order.loss[size - count] for order, size, count in zip(orders, limits.sizes, kept, strict=True)]
    )


def _with(kept: Counts, place: int, number: int, spent: Spent) -> float:
    changed = kept.astype(np.float64)
    changed[place] = number
    return float(spent(changed))
