"""Which indices of a reshaped tensor stay the same: the factors that an axis before and one after share.

A Reshape that makes [n·12, 64] of [n, 768] takes 768 = 12·64 apart: 12 goes on inside the first axis, 64 is
the second. Each such number is a factor: the outer part, the inner part or the whole of an axis on either
side. Dimensions are integers, or strings for symbolic ones; row-major order, as ONNX has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Dim = int | str | None


class Part(NamedTuple):
    """The index of `size` in axis `axis` that has `outer` indices of the same axis in front of it."""

    axis: int
    outer: int
    size: Dim


Factor = tuple[Part, Part]  # before, after: equal sizes


def factors(before: Sequence[Dim], after: Sequence[Dim]) -> list[Factor]:
    """The factors of both shapes, from the outermost to the innermost; axes of size 1 are in none.

    Sizes are compared from the left up to the first symbolic dimension that has no equal, or up to two
    integers without a common divisor; then from the right. What lies between is in no factor.
    """
    if 0 in before or 0 in after:
        return []
    sides = [_Side(_solved(before, after)), _Side(_solved(after, before))]
    from_left = _walk(sides, inner=False)
    return from_left + _walk(sides, inner=True)[::-1]


class _Side:
    """The axes of one shape, with how much of each is not yet in a factor."""

    def __init__(self, dims: Sequence[Dim]) -> None:
        self.axes = [axis for axis, dim in enumerate(dims) if dim != 1]
        self.rest = list(dims)
        self.outer = [1] * len(dims)  # in factors from the left

    def take(self, size: Dim, *, inner: bool) -> Part:
        """Split `size` off the outermost axis left, from its front; or the innermost one, from its back."""
        axis = self.axes[-1 if inner else 0]
        rest = self.rest[axis]
        left = rest // size if isinstance(rest, int) and isinstance(size, int) else 1
        part = Part(axis, self.outer[axis] * (left if inner else 1), size)
        self.rest[axis] = left
        if not inner and isinstance(size, int):
            self.outer[axis] *= size
        if left == 1:
            self.axes.remove(axis)
        return part


def _walk(sides: Sequence[_Side], *, inner: bool) -> list[Factor]:
    found: list[Factor] = []
    before, after = sides
    while before.axes and after.axes:
        a, b = (side.rest[side.axes[-1 if inner else 0]] for side in sides)
        size = math.gcd(a, b) if isinstance(a, int) and isinstance(b, int) else a if a == b else None
        if size is None or size == 1:
            break
        found.append((before.take(size, inner=inner), after.take(size, inner=inner)))
    return found


def _solved(dims: Sequence[Dim], others: Sequence[Dim]) -> list[Dim]:
    """`dims`, where the only symbolic dimension of both sides is given one name if it must be equal."""
    known, known_others = ([dim for dim in side if isinstance(dim, int)] for side in (dims, others))
    single = len(known) == len(dims) - 1 and len(known_others) == len(others) - 1
    equal = single and math.prod(known) == math.prod(known_others) > 0
    return [dim if isinstance(dim, int) or not equal else "the only unknown" for dim in dims]
