"""Rows: which of a layer's rows are wanted, where not all of them are.

Rows are samples × positions, samples slowest, as in `layers`. Both kinds say the numbers of their rows, so
that a patch that nobody wants is never made, and take them from rows that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import gcd

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Every:
    """Every `step`-th row, counted through all samples."""

    step: int

    def numbers(self, op: Emitter, rows: ir.Value) -> ir.Value:
        """Numbers of the wanted ones of so many `rows`, a scalar int64."""
        wanted: ir.Value = op.Range(op.constant(0, np.int64), rows, op.constant(self.step, np.int64))
        return wanted

    def of(self, op: Emitter, rows: ir.Value) -> ir.Value:
        """The wanted columns of `rows` [groups, width, rows]."""
        end = np.iinfo(np.int64).max
        kept: ir.Value = op.Slice(rows, op.ints(0), op.ints(end), op.ints(2), op.ints(self.step))
        return kept


@dataclass(frozen=True)
class Drawn:
    """`kept` of the `positions` of every sample; which ones, the run decides by `start`, a scalar int64.

    The k-th row of all lies at position (start + k · step) mod positions of its sample, step being near the
    golden section: evenly spread, never the same twice in one sample. For a uniform start every position is
    as likely as any other, so that sums over these rows times positions / kept are unbiased.
    """

    start: ir.Value
    positions: int
    kept: int

    @property
    def step(self) -> int:
        """From one row to the next; coprime to the positions, so that all of them are gone through."""
        near = max(1, round(self.positions * _GOLDEN))
        return next(step for step in count(near) if gcd(step, self.positions) == 1)

    @property
    def share(self) -> float:
        """How many rows a kept one stands for."""
        return self.positions / self.kept

    def numbers(self, op: Emitter, rows: ir.Value) -> ir.Value:
        """Numbers of the wanted ones of so many `rows`, a scalar int64."""
        zero, one, positions, kept, step = (
            op.constant(number, np.int64) for number in (0, 1, self.positions, self.kept, self.step)
        )
        order = op.Range(zero, op.Mul(op.Div(rows, positions), kept), one)
        place = op.Mod(op.Add(self.start, op.Mul(order, step)), positions)
        wanted: ir.Value = op.Add(op.Mul(op.Div(order, kept), positions), place)
        return wanted

    def of(self, op: Emitter, rows: ir.Value) -> ir.Value:
        """The wanted columns of `rows` [groups, width, rows]."""
        wanted = self.numbers(op, op.Squeeze(op.Shape(rows, start=2)))
        kept: ir.Value = op.Gather(rows, wanted, axis=2)
        return kept


Rows = Every | Drawn
