"""Small multiples: paths of SVG in a box of 100 × 100, y downward, for figures that need no axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxprune.report.schema import Histogram


def steps(counts: Sequence[int], highest: int) -> str:
    """The area under the bars of a histogram; heights are logarithms, so that few weights are seen, too."""
    width, path = 100 / len(counts), ["M0 100"]
    for place, count in enumerate(counts):
        height = 100 * math.log1p(count) / math.log1p(max(1, highest))
        path.append(f"V{100 - height:.4g}H{width * (place + 1):.4g}")
    return "".join([*path, "V100Z"])


def tallest(histogram: Histogram) -> int:
    """The highest bar of the two, so that both have one scale."""
    return max(*histogram.before, *histogram.after)


def cheapest(costs: Sequence[float]) -> list[tuple[int, float]]:
    """Units with what they cost, cheapest first, as `Plan.units` counts them."""
    return sorted(enumerate(costs), key=lambda pair: pair[1])


def ascending(costs: Sequence[float]) -> str:
    """Costs from the least to the largest as steps, on a scale of log₁₀ over at most six decades."""
    exponents = [math.log10(max(cost, 1e-300)) for cost in sorted(costs)]
    top = exponents[-1]
    span = min(6.0, max(top - exponents[0], 0.1))
    width, path = 100 / len(exponents), ["M0 100"]
    for place, exponent in enumerate(exponents):
        height = 4 + 96 * max(0.0, 1 - (top - exponent) / span)
        path.append(f"V{100 - height:.4g}H{width * (place + 1):.4g}")
    return "".join([*path, "V100Z"])
