"""Intervals: how far figures measured on n samples can be trusted, at 95 %.

Wilson's for a share (scipy's). Tango's for a drop, that is the difference of two shares of the same samples
(Statistics in Medicine 17, 1998): also a score interval, and Wilson's where the second model is right only
where the first one is.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtri

CONFIDENCE = 0.95

Interval = tuple[float, float]
Hits = npt.NDArray[np.bool_]


def wilson(hits: Hits) -> Interval:
    """Of the share of `hits`, bool [n]."""
    from scipy.stats import binomtest  # a second to import, for every command that evaluates

    found: Any = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def paired_drop(before: Hits, after: Hits) -> Interval:
    """Of mean(before) − mean(after) over the same samples, bool [n] both."""
    lost, won, count = int((before & ~after).sum()), int((after & ~before).sum()), len(before)
    return -_upper(won, lost, count), _upper(lost, won, count)


def resolution(count: int) -> float:
    """The smallest drop that `count` samples can rule out: the end of the interval if no outcome changes."""
    return _upper(0, 0, count)


def _upper(lost: int, won: int, count: int) -> float:
    """The larger drop that the score test just accepts."""
    quantile = float(ndtri((1 + CONFIDENCE) / 2))
    estimate = (lost - won) / count

    def excess(drop: float) -> float:
        distance = count * drop - (lost - won)
        variance = count * (2 * _won(lost, won, count, drop) + drop * (1 - drop))
        return distance - quantile * sqrt(max(0.0, variance))

    return 1.0 if estimate >= 1 else float(brentq(excess, estimate + 1e-12, 1.0))


def _won(lost: int, won: int, count: int, drop: float) -> float:
    """The most likely share of samples that only the second model gets right, given the drop."""
    linear = (2 * count - lost + won) * drop - lost - won
    constant = -won * drop * (1 - drop)
    return (sqrt(linear**2 - 8 * count * constant) - linear) / (4 * count)
