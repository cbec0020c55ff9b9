"""What a gram costs by either way, from shapes alone, and which way costs less.

Counted are floating-point operations, bytes that go through memory, and matrix products, each of which costs
something to begin. The prices below turn them into one number. They are those of a CPU core as measured by
`benchmarks/grams.py`; on a GPU bytes are dearer still, which moves few decisions: both ways copy as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from onnxprune.grams.correlation import Correlation
from onnxprune.grams.sliding import Sliding
from onnxprune.grams.square import halvings

_OPERATIONS_A_BYTE = 8
_OPERATIONS_A_PRODUCT = 50_000
_LANES = 16  # a matrix product narrower than this takes as long as one of this width
_SIZE = 4  # bytes of a number
_MOST_PRODUCTS = 20_000  # of a correlation; beyond, listing them would cost more than they save

_CLEARLY = 1.25  # prices are rough: the direct way unless it is dearer by this factor

Way = Literal["direct", "correlation"]


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, bytes moved and matrix products of one batch."""

    operations: float
    bytes: float
    products: int

    @property
    def total(self) -> float:
        """All of it, in floating-point operations."""
        return self.operations + _OPERATIONS_A_BYTE * self.bytes + _OPERATIONS_A_PRODUCT * self.products


@dataclass(frozen=True)
class Choice:
    """The way taken and what both cost; without `correlation` there is none but the direct one."""

    way: Way
    costs: dict[Way, Cost]
    correlation: Correlation | None


def choose(sliding: Sliding, samples: int) -> Choice:
    """The way to the gram of what `sliding` reads in so many samples: direct, or one clearly cheaper."""
    costs: dict[Way, Cost] = {"direct": direct_cost(sliding, samples)}
    if prod(sliding.kernel) == 1 or _expected(sliding.kernel) > _MOST_PRODUCTS:
        return Choice("direct", costs, None)
    correlation = Correlation(sliding)
    if not correlation.number:  # all patches lie in the padding
        return Choice("direct", costs, None)
    costs["correlation"] = correlation_cost(sliding, correlation, samples)
    dearer = costs["direct"].total > _CLEARLY * costs["correlation"].total
    return Choice("correlation" if dearer else "direct", costs, correlation)


def direct_cost(sliding: Sliding, samples: int) -> Cost:
    """Patches by one-hot kernels, rows in front, and their product with themselves."""
    size, width = prod(sliding.kernel), sliding.width
    entries = sliding.groups * width * samples * prod(sliding.outputs)
    cut = halvings(width)
    unfolding = 0 if size == 1 else 2 * size * entries
    squaring = 2 * _filled(width) * entries * (1 + 0.5**cut) / 2
    moved = entries * ((1 if size > 1 else 0) + 2 + 1 + 2 * cut) + sliding.groups * width**2 * (
        3 if cut else 1
    )
    return Cost(unfolding + squaring, _SIZE * moved, sliding.groups * (2 ** (cut + 1) - 1))


def correlation_cost(sliding: Sliding, correlation: Correlation, samples: int) -> Cost:
    """The input turned, both sides of every product gathered, and the products, whole and of the border."""
    channels, (first, others) = sliding.groups * sliding.channels, correlation.sides
    turned = channels * samples * prod(sliding.sizes)
    whole, border = (first + others) * turned, channels * samples * correlation.pixels
    joined = (first * others + 2 * correlation.number) * sliding.groups * sliding.channels**2
    operations = (
        2.0
        * _filled(first * sliding.channels)
        * _filled(others * sliding.channels)
        * (turned / sliding.channels)
    )
    operations += 2.0 * _filled(sliding.channels) * border
    moved = 2 * whole + 8 * border + 4 * turned + 3 * joined
    return Cost(operations, _SIZE * moved, sliding.groups * (1 + correlation.borders))


def _filled(width: int) -> int:
    return -(-width // _LANES) * _LANES


def _expected(kernel: tuple[int, ...]) -> int:
    """Products where no window is shorter than the kernel reaches."""
    return prod(2 * size * (size - 1) + 1 for size in kernel) // 2
