"""Which axes of a reshaped tensor hold the same indices: runs of axes with equal products.

Dimensions are integers, or strings for symbolic ones; row-major order, as ONNX has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Dim = int | str | None
Run = tuple[tuple[int, ...], tuple[int, ...]]


def runs(before: Sequence[Dim], after: Sequence[Dim]) -> list[Run]:
    """The shortest runs of axes `(of before, of after)` that hold the same elements, axes of size 1 left out.

    Runs are paired from the left up to the first symbolic dimension that has no equal, then from the right;
    axes between the two stay unpaired and are in no run.
    """
    left = [(axis, dim) for axis, dim in enumerate(_solved(before, after)) if dim != 1]
    right = [(axis, dim) for axis, dim in enumerate(_solved(after, before)) if dim != 1]
    from_left = _prefix(left, right)
    used_left, used_right = (sum(len(run[side]) for run in from_left) for side in (0, 1))
    from_right = _prefix(left[used_left:][::-1], right[used_right:][::-1])
    return from_left + [(run[0][::-1], run[1][::-1]) for run in from_right]


def _solved(dims: Sequence[Dim], others: Sequence[Dim]) -> list[Dim]:
    """`dims`, where the only symbolic dimension of both sides is given one name if it must be equal."""
    known, known_others = ([dim for dim in side if isinstance(dim, int)] for side in (dims, others))
    single = len(known) == len(dims) - 1 and len(known_others) == len(others) - 1
    equal = single and math.prod(known) == math.prod(known_others) > 0
    return [dim if isinstance(dim, int) or not equal else "the only unknown" for dim in dims]


def _prefix(left: Sequence[tuple[int, Dim]], right: Sequence[tuple[int, Dim]]) -> list[Run]:
    found: list[Run] = []
    i = j = 0
    while i < len(left) and j < len(right):
        i_end, j_end = i + 1, j + 1
        a, b = left[i][1], right[j][1]
        while a is not None and a != b:
            if not isinstance(a, int) or not isinstance(b, int):
                return found
            side, end = (left, i_end) if a < b else (right, j_end)
            factor = side[end][1] if end < len(side) else None
            if not isinstance(factor, int):
                return found
            if a < b:
                a, i_end = a * factor, i_end + 1
            else:
                b, j_end = b * factor, j_end + 1
        if a is None:
            return found
        found.append((tuple(axis for axis, _ in left[i:i_end]), tuple(axis for axis, _ in right[j:j_end])))
        i, j = i_end, j_end
    return found
