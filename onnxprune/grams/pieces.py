"""Pieces: how the pixels of one axis are cut so that products of shifted images are shared by many blocks.

Offsets a and b of a patch meet in Σ_p x[p + aδ] x[p + bδ] over positions p < O. With q = p + aδ that is a
sum over the window aδ ≤ q < aδ + O of x[q] x[q + (b − a)δ]: of b − a alone, but for where the window lies. So
for each difference the axis is cut wherever a window begins or ends, each piece is multiplied once, and a
block is the sum of the pieces in its window: borders exact, and nothing subtracted that would cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Piece:
    """Pixels `start` … `start + length`, which lie in the windows of offsets `first` … `last`."""

    start: int
    length: int
    first: int
    last: int


@dataclass(frozen=True)
class Cut:
    """The pieces for one difference, and the offsets a from `low` up to `high` that have a partner there."""

    pieces: tuple[Piece, ...]
    low: int
    high: int


def cuts(kernel: int, dilation: int, outputs: int) -> dict[int, Cut]:
    """By difference b − a, from 1 − kernel to kernel − 1, how the axis is cut.

    The pieces for −d are those for d moved by d · dilation, in the same order.
    """
    return {shift: _cut(shift, kernel, dilation, outputs) for shift in range(1 - kernel, kernel)}


def _cut(shift: int, kernel: int, dilation: int, outputs: int) -> Cut:
    low, high = max(0, -shift), min(kernel, kernel - shift) - 1
    begins = [offset * dilation for offset in range(low, high + 1)]
    borders = sorted({*begins, *(begin + outputs for begin in begins)})
    pieces = []
    for start, end in pairwise(borders):
        first, last = max(low, -((outputs - end) // dilation)), min(high, start // dilation)
        if first <= last:  # else a gap between windows, where dilation exceeds the output
            pieces.append(Piece(start, end - start, first, last))
    return Cut(tuple(pieces), low, high)
