"""Products of rows in a graph that is being emitted; a row's product with itself in little more than half.

X Xᵀ is symmetric: with X cut in two, the upper right corner is also the lower left one. Halved again inside
the corners on the diagonal, n times, (1 + 2⁻ⁿ)/2 of the multiplications are left.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.emit import Emitter

# What a cut saves grows with the width, the copies that it makes do not. On one core of a CPU cuts of 64 rows
# cost twice as much as they save, those of 256 are worth a fifth, and a fourth cut of 1152 adds nothing.
_LEAST_WIDTH = 256
_MOST_CUTS = 3
_LANES = 16  # a CPU multiplies as many columns at once: cut there, 784 columns take 3 % less time


def halvings(width: int) -> int:
    """How often rows of this width are cut in two."""
    return min(_MOST_CUTS, max(0, (width // _LEAST_WIDTH).bit_length()))


def square(op: Emitter, rows: ir.Value, groups: int, width: int) -> ir.Value:
    """Σ x xᵀ over rows: [groups, width, rows] → [groups, width, width]."""
    return _halved(op, rows, groups, width, halvings(width))


def times(op: Emitter, rows: ir.Value, groups: int, other: ir.Value) -> ir.Value:
    """Σ x yᵀ over rows: [groups, m, rows] × [groups, n, rows] → [groups, m, n]."""
    if groups > 1:
        product: ir.Value = op.MatMul(rows, op.Transpose(other, perm=[0, 2, 1]))
        return product
    axis = op.ints(0)
    flat = op.Gemm(op.Squeeze(rows, axis), op.Squeeze(other, axis), transB=1)
    result: ir.Value = op.Unsqueeze(flat, axis)
    return result


def _halved(op: Emitter, rows: ir.Value, groups: int, width: int, depth: int) -> ir.Value:
    if depth == 0:
        return times(op, rows, groups, rows)
    half = -(-width // (2 * _LANES)) * _LANES
    first, second = op.Split(rows, op.ints(half, width - half), axis=1, outputs=2)
    corner = times(op, first, groups, second)
    above = op.Concat(_halved(op, first, groups, half, depth - 1), corner, axis=2)
    rest = _halved(op, second, groups, width - half, depth - 1)
    below = op.Concat(op.Transpose(corner, perm=[0, 2, 1]), rest, axis=2)
    result: ir.Value = op.Concat(above, below, axis=1)
    return result
