"""Measurements of pruning penalties compared: shares, differences, performance profiles.

A measurement is one setting (network, moment, layers, amount); each has a penalty for every method (score and
replacement).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.reproduce.penalties import SCORES, Method

Array = npt.NDArray[np.float64]
Images = Literal["train", "test"]


class Key(NamedTuple):
    """One measurement."""

    seed: int
    step: int
    layers: str
    amount: float


Measurements = Mapping[Key, Mapping[Method, float]]

PAPER = tuple(Method(score, replaced) for replaced in ("mean", "zero") for score in SCORES)  # type: ignore[arg-type]
OURS = (Method("kfac", "mean"), Method("kfac", "zero"))
_SAME = 1e-6  # nats; float32 sums differ by less where a dead unit goes


def measurements(rows: Iterable[Mapping[str, str]], images: Images, part: str = "paper") -> Measurements:
    """The penalties of one part, in nats, on the images of the scores or on test images."""
    found: dict[Key, dict[Method, float]] = {}
    for row in rows:
        if row["part"] == part and row[images]:
            key = Key(int(row["seed"]), int(row["step"]), row["layers"], float(row["amount"]))
            method = Method(row["score"], row["replace"])  # type: ignore[arg-type]
            found.setdefault(key, {})[method] = float(row[images])
    return found


def differences(found: Measurements, one: Method, other: Method) -> Array:
    """Penalty of `one` less that of `other`, for every measurement that has both."""
    return np.array([each[one] - each[other] for each in found.values() if one in each and other in each])


def shares(difference: Array) -> tuple[float, float, float]:
    """Shares of the differences that are below, equal to and above zero."""
    lower, higher = difference < -_SAME, difference > _SAME
    return float(lower.mean()), float((~lower & ~higher).mean()), float(higher.mean())


def normalised(found: Measurements, method: Method, among: Sequence[Method] = PAPER) -> Array:
    """Where the penalty of `method` lies between the least (0) and the largest (1) of `among`.

    Measurements in which all are equal say nothing, and are left out. A method not in `among` may be below 0.
    """
    places = []
    for each in found.values():
        low, high = min(each[m] for m in among), max(each[m] for m in among)
        if high - low > _SAME:
            places.append((each[method] - low) / (high - low))
    return np.array(places)


def profile(found: Measurements, method: Method, taus: Array) -> Array:
    """Fig. 5: the share of measurements with a penalty of at most min + τ (max − min), by τ."""
    places = normalised(found, method)
    shares_: Array = (places[:, None] <= taus[None, :] + 1e-12).mean(axis=0)
    return shares_


def area(found: Measurements, method: Method) -> float:
    """Area under the profile, τ from 0 to 1: 1 where the method always has the least penalty."""
    return float(1 - np.clip(normalised(found, method), 0, 1).mean())


def by_seed(found: Measurements) -> list[Measurements]:
    """The measurements of each seed."""
    seeds = sorted({key.seed for key in found})
    return [{key: each for key, each in found.items() if key.seed == seed} for seed in seeds]


def by_step(found: Measurements) -> list[tuple[int, Measurements]]:
    """The measurements at each moment."""
    steps = sorted({key.step for key in found})
    return [(step, {key: each for key, each in found.items() if key.step == step}) for step in steps]
