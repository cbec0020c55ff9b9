"""Widths: which numbers of units each family may keep, and what they are worth in the budget.

    multiples of --round-to from --min-units up, and all; what --units-of settles; with --round-to auto those
    numbers only that a machine runs faster than the next wider one

A branch behind a residual sum may also go as a whole: where that is allowed, or where no narrower one is
faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.options import Options
from onnxprune.shares import Limits, steps
from onnxprune.speeds import SpeedTable
from onnxprune.units.branches import exits
from onnxprune.units.families import Families, Family

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]


def allowed_widths(found: Families, options: Options, speeds: SpeedTable | None) -> Limits:
    """The limits of every family.

    Args:
        found: the families to cut.
        options: minima, multiples, settled fractions.
        speeds: what widths cost on this machine, where `--round-to auto` asks for it.
    """
    branches = exits(found) if options.scope == "global" and not options.min_units else {}
    allowed, costs = [], []
    for family in found.families:
        # a unit of several channels (a head, a group) need not itself come in multiples
        channels = family.makers[0].indices.shape[1]
        least = 0 if family.name in branches and options.min_units == 0 else max(1, options.min_units or 1)
        numbers = steps(family.size, least, _step(options, channels), _pinned(family, options))
        if speeds is not None and len(numbers) > 1:
            numbers = _fast(numbers, speeds.useful(family.size, channels), family.name in branches)
        allowed.append(numbers)
        costs.append(_cost(family, numbers, channels, speeds))
    sizes = np.array([family.size for family in found.families])
    return Limits(sizes, tuple(allowed), tuple(costs))


def _fast(numbers: Slots, useful: Sequence[int], is_branch: bool) -> Slots:
    """The useful ones; a branch that no narrower width makes faster may go as a whole."""
    fast = numbers[np.isin(numbers, [0, *useful])]
    return np.array([0, *fast]) if is_branch and len(fast) == 1 else fast


def _step(options: Options, channels: int) -> int:
    multiple = options.round_to if isinstance(options.round_to, int) else 1
    return multiple // gcd(multiple, channels)


def _pinned(family: Family, options: Options) -> int | None:
    """How many units stay where --units-of has a fraction for one of their makers."""
    shares = [
        share
        for pattern, share in options.units_of.items()
        if any(touch.layer.matches(pattern) for touch in family.makers)
    ]
    return family.size - round(family.size * min(shares)) if shares else None


def _cost(family: Family, numbers: Slots, channels: int, speeds: SpeedTable | None) -> Array:
    """What each number of units is worth: half what it is in MACs, half what it is in measured time."""
    if speeds is None:
        return numbers.astype(np.float64)
    times = np.array([speeds.time(number * channels) for number in numbers.tolist()])
    cost: Array = (numbers + family.size * times / speeds.time(family.size * channels)) / 2
    return cost
