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
    """How many units a family may keep: at least `least`, in steps of `step` where it is cut at all.

    `step` may differ by family. `pinned` is the number kept where that is settled beforehand, −1 elsewhere.
    """

    sizes: Counts
    least: int = 1
    step: int | Counts = 1
    pinned: Counts | None = None

    def floor(self) -> Counts:
        """The fewest of each family."""
        lowest: Counts = np.minimum(self.sizes, -(-max(1, self.least) // self.step) * self.step)
        return self._settled(lowest)

    def ceiling(self) -> Counts:
        """The most of each family: all of it, or what is settled."""
        return self._settled(self.sizes)

    def round(self, kept: Array) -> Counts:
        """The nearest allowed numbers; all of a family is always allowed."""
        stepped: Counts = np.rint(kept / self.step).astype(np.int64) * self.step
        return np.minimum(np.maximum(stepped, self.floor()), self.ceiling())

    def _settled(self, free: Counts) -> Counts:
        return free if self.pinned is None else np.where(self.pinned >= 0, self.pinned, free)


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
    best = _greedy(sizes, bounds, [_hull(order.loss) for order in orders], goal, spent, slope)
    uniform = _scaled(sizes, bounds, goal, spent) / sizes
    mixed = (best / sizes) ** _TRUST * uniform ** (1 - _TRUST)
    kept = limits.round(_scaled(mixed * sizes, bounds, goal, spent))
    return _trimmed(limits, kept, orders, goal, spent, slope)


def _greedy(
    sizes: Array,
    bounds: tuple[Array, Array],
    hulls: list[tuple[Counts, Array]],
    goal: float,
    spent: Spent,
    slope: Slope,
) -> Array:
    floor, kept, corner = bounds[0], bounds[1].copy(), np.zeros(len(sizes), dtype=np.int64)
    losses = [hull[1] for hull in hulls]
    places = [hull[0] for hull in hulls]
    prices = np.array(
        [_price(place, loss, 0) for place, loss in zip(places, losses, strict=True)], dtype=np.float64
    )
    while spent(kept) > goal:
        open_ = kept > floor
        if not open_.any():
            break
        chosen = int(np.argmin(np.where(open_, prices / np.maximum(slope(kept), 1e-300), np.inf)))
        corner[chosen] += 1
        kept[chosen] = max(floor[chosen], sizes[chosen] - places[chosen][corner[chosen]])
        prices[chosen] = _price(places[chosen], losses[chosen], int(corner[chosen]))
    return kept


def _price(places: Array, losses: Array, corner: int) -> float:
    if corner + 1 >= len(places):
        return np.inf
    return float((losses[corner + 1] - losses[corner]) / (places[corner + 1] - places[corner]))


def _hull(loss: Array) -> tuple[Counts, Array]:
    """Corners of the lower convex hull of (k, loss[k]), at most a sixteenth of the family apart."""
    corners = [0]
    for k in range(1, len(loss)):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (loss[b] - loss[a]) * (k - a) < (loss[k] - loss[a]) * (b - a):
                break
            corners.pop()
        corners.append(k)
    grid = np.unique([*corners, *np.linspace(0, len(loss) - 1, 17).astype(int)])
    return grid, np.interp(grid, corners, loss[corners])


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
    """Where rounding went over the goal, steps are given up with least loss; then spare room is used."""
    kept, floor = kept.copy(), limits.floor()
    loss = [order.loss for order in orders]
    while spent(kept.astype(np.float64)) > goal and (kept > floor).any():
        down = np.maximum(np.ceil(kept / limits.step).astype(np.int64) * limits.step - limits.step, floor)
        rise = [loss[f][n - down[f]] - loss[f][n - kept[f]] for f, n in enumerate(limits.sizes)]
        saved = np.maximum(slope(kept.astype(np.float64)) * (kept - down), 1e-300)
        chosen = int(np.argmin(np.where(kept > floor, np.array(rise) / saved, np.inf)))
        kept[chosen] = down[chosen]
    while True:
        up = np.minimum(kept + limits.step, limits.ceiling())
        fits = [f for f in map(int, np.flatnonzero(up > kept)) if _with(kept, f, int(up[f]), spent) <= goal]
        if not fits:
            return kept
        gain = {f: loss[f][limits.sizes[f] - kept[f]] - loss[f][limits.sizes[f] - up[f]] for f in fits}
        chosen = max(fits, key=lambda f: gain[f] / max(slope(kept.astype(np.float64))[f], 1e-300))
        kept[chosen] = up[chosen]


def _with(kept: Counts, place: int, number: int, spent: Spent) -> float:
    changed = kept.astype(np.float64)
    changed[place] = number
    return float(spent(changed))
