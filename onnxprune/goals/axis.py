"""The axis of a search: all budgets of one kind, from the share that is kept to options, and its halving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from onnxprune.options import Axis, Options, resolve

LEAST: dict[Axis, float] = {"ratio": 1 / 512, "units": 1 / 32, "macs": 1 / 64}  # shares no search goes below
_FEWEST = 1e-6  # of units to remove: none of them, since the option must be more than 0


@dataclass(frozen=True)
class Line:
    """Budgets of one `axis`; everything else is as `recipe` and the options `given` say."""

    recipe: str
    axis: Axis
    given: Mapping[str, Any]

    def at(self, kept: float) -> Options:
        """The options that keep a share of parameters, units or MACs."""
        return resolve(self.recipe, **{**self.given, self.axis: self.value(kept)})

    def value(self, kept: float) -> float:
        """The option's value, in four digits, so that a report's number gives the same result."""
        if self.axis == "units":
            return max(_FEWEST, float(f"{1 - kept:.4g}"))
        return float(f"{kept:.4g}")

    def flag(self, kept: float) -> str:
        """The option as it would be given."""
        return f"--{self.axis} {self.value(kept):g}"


def halve(low: float, high: float, reaches: Callable[[float], bool], tolerance: float) -> tuple[float, float]:
    """Halve the logarithm of a range until its ends are within a factor `tolerance`.

    `reaches(share)` says whether the share sought is at most that; it is asked inside the range only, and
    taken to be monotone.
    """
    while high / low > tolerance:
        middle = sqrt(low * high)
        if reaches(middle):
            high = middle
        else:
            low = middle
    return low, high
