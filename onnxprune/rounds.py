"""Rounds: how the weights of one layer leave, some at a time; each round makes of saliencies the next mask.

Layouts [groups, d_out, d_in], d_in being channels · kernel positions; masks are True where a weight stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Round = Callable[[Array, Mask], Mask]


@dataclass(frozen=True)
class Effort:
    """How thorough a sweep is.

    `rounds` are for the whole way from dense to pruned; steps share them. `rows` a column are what a gram is
    made of where there are more: of 100 or all, nothing changed (ResNet-20: KL 0.452, 0.455). A ridge is
    tried on so many `outputs` at most, where that is fewer than usual. `exact`: the last fit is, whatever it
    takes.
    """

    rounds: int = 32
    rows: int = 200
    outputs: int | None = None
    exact: bool = True


FULL = Effort()
# What a search needs to know the price of a budget (figures: docs/design.md).
DRAFT = Effort(rounds=8, rows=40, outputs=128, exact=False)


def geometric(start: int, count: int, rounds: int) -> list[Round]:
    """Rounds from `start` weights to `count`, each keeping the same share."""
    goals = [round(start * (max(count, 0.5) / start) ** (done / rounds)) for done in range(1, rounds)]
    return [partial(largest, count=goal) for goal in (*goals, count)]


def thinned(rounds: Sequence[Round], share: float) -> list[Round]:
    """The rounds for a `share` of the output units: counts fall with it, patterns are those of a row."""
    return [
        partial(largest, count=round(share * leave.keywords["count"]))
        if isinstance(leave, partial) and leave.func is largest
        else leave
        for leave in rounds
    ]


def patterned(kept: int, of: int, kernel: int, staying: Mask) -> list[Round]:
    """Rounds that end with `kept` weights of every `of` consecutive channels, one weight less a round."""
    leave = partial(n_of_m, of=of, kernel=kernel, staying=staying)
    return [partial(leave, kept=remaining) for remaining in range(of - 1, kept - 1, -1)]


def n_of_m(scores: Array, allowed: Mask, kept: int, of: int, kernel: int, staying: Mask) -> Mask:
    """N:M sparsity along the input channels, at every kernel position; channels beyond the last whole M stay.

    Args:
        scores: [groups, d_out, channels · kernel].
        allowed: mask of the same shape.
        kept: N.
        of: M.
        kernel: kernel positions a channel.
        staying: bool [groups, channels], False for the units that go: groups of M are those of the channels
            that will be neighbours without them.

    Returns:
        bool [groups, d_out, channels · kernel], False wherever not allowed.
    """
    groups, d_out, d_in = scores.shape
    shaped = np.where(allowed, scores, -1.0).reshape(groups, d_out, d_in // kernel, kernel)
    mask = np.ones(shaped.shape, dtype=bool)
    for group in range(groups if d_in // kernel >= of else 0):
        channels = np.flatnonzero(staying[group])
        channels = channels[: len(channels) // of * of]
        blocks = shaped[group][:, channels].reshape(d_out, len(channels) // of, of, kernel)
        ranks = np.argsort(np.argsort(-blocks, axis=2, kind="stable"), axis=2, kind="stable")
        mask[group][:, channels] = (ranks < kept).reshape(d_out, len(channels), kernel)
    return mask.reshape(scores.shape) & allowed


def largest(scores: Array, allowed: Mask, count: int) -> Mask:
    """Mask of exactly `count` highest scores among `allowed` (all if there are fewer); ties by position."""
    free = scores[allowed]
    if count >= free.size:
        return allowed.copy()
    if count <= 0:
        return np.zeros(scores.shape, dtype=bool)
    free.partition(free.size - count)  # in place: of the largest layers these are gigabytes
    least = free[free.size - count]
    del free
    mask = np.empty(scores.shape, dtype=bool)
    np.greater(scores, least, out=mask)
    mask &= allowed
    equal = np.flatnonzero(allowed & (scores == least))
    mask.reshape(-1)[equal[: count - int(np.count_nonzero(mask))]] = True
    return mask
