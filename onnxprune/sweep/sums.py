"""Moments of a refit: what least squares needs to know of a layer's pruned inputs X and its targets T.

    gram    Σ x xᵀ      cross   Σ t xᵀ
    input   Σ x         target  Σ t        square  Σ t²

or, where rows are fewer than columns, the rows x and t themselves. With a free bias the best bias is t̄ − W x̄
for any W, so the fit is one of centred moments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.dual import RowProblem
from onnxprune.refit import Problem
from onnxprune.statistics import Gram

Array = npt.NDArray[Any]


@dataclass
class Moments:
    """Sums over `weight` rows; layouts [groups, …] as in `layers`."""

    gram: Gram
    cross: Array
    input: Array
    target: Array
    square: Array
    weight: float

    @property
    def size(self) -> int:
        """Columns, d_in."""
        return self.gram.size

    def __iadd__(self, other: Moments) -> Moments:
        """Add the sums of other rows, in place: they may be large, and `other`'s may be float32."""
        self.gram.total += other.gram.total
        self.gram.weight += other.gram.weight
        self.cross += other.cross
        self.input += other.input
        self.target += other.target
        self.square += other.square
        self.weight += other.weight
        return self

    def joined(self, other: Moments | RowMoments) -> Moments:
        """Moments of both sets of rows, which are of one kind; this one becomes them."""
        assert isinstance(other, Moments)
        self += other
        return self

    def wide(self) -> Moments:
        """A copy in float64."""
        gram, cross, inputs, target, square = (
            array.astype(np.float64)
            for array in (self.gram.total, self.cross, self.input, self.target, self.square)
        )
        return Moments(Gram(gram, self.gram.weight), cross, inputs, target, square, self.weight)

    def finite(self) -> bool:
        """Whether there is neither NaN nor Inf in targets and inputs."""
        return bool(np.isfinite(self.cross).all())

    def of(self, outputs: npt.NDArray[np.int64]) -> Moments:
        """Those of some of the output units."""
        cross, target, square = (array[:, outputs] for array in (self.cross, self.target, self.square))
        return Moments(self.gram, cross, self.input, target, square, self.weight)

    def problem(self, has_bias: bool) -> Problem:
        """The least-squares problem, centred where a bias is free to absorb the means."""
        mean_x = self.input / self.weight * has_bias
        mean_t = self.target / self.weight * has_bias
        total = (-self.weight * mean_x)[:, :, None] * mean_x[:, None, :]
        total += self.gram.total  # in place: the largest there are
        cross = self.cross / self.weight - mean_t[:, :, None] * mean_x[:, None, :]
        square = self.square / self.weight - mean_t**2
        return Problem(Gram(total, self.weight), cross, mean_x, mean_t, square)

    def error(self, weights: Array, bias: Array) -> float:
        """Mean squared error over all rows, summed over the output units."""
        mean_x, mean_t = self.input / self.weight, self.target / self.weight
        shifted = bias**2 - 2 * bias * mean_t + 2 * bias * np.einsum("goi,gi->go", weights, mean_x)
        product = self.gram.times(weights) - 2 / self.weight * self.cross
        fitted = np.einsum("goi,goi->go", weights, product)
        return float((self.square / self.weight + fitted + shifted).sum())


@dataclass
class RowMoments:
    """The rows themselves: inputs [groups, rows, d_in] and targets [groups, rows, d_out], float64."""

    rows: Array
    targets: Array

    @property
    def size(self) -> int:
        """Columns, d_in."""
        return int(self.rows.shape[2])

    @property
    def weight(self) -> float:
        """How many rows there are."""
        return float(self.rows.shape[1])

    def joined(self, other: Moments | RowMoments) -> RowMoments:
        """Both sets of rows, which are of one kind."""
        assert isinstance(other, RowMoments)
        return RowMoments(
            np.concatenate([self.rows, other.rows], axis=1),
            np.concatenate([self.targets, other.targets], axis=1),
        )

    def finite(self) -> bool:
        """Whether there is neither NaN nor Inf in targets and inputs."""
        return bool(np.isfinite(self.rows).all() and np.isfinite(self.targets).all())

    def of(self, outputs: npt.NDArray[np.int64]) -> RowMoments:
        """Those of some of the output units."""
        return RowMoments(self.rows, self.targets[:, :, outputs])

    def problem(self, has_bias: bool) -> RowProblem:
        """The least-squares problem, centred where a bias is free to absorb the means."""
        mean_x = self.rows.mean(axis=1, dtype=np.float64) * has_bias
        mean_t = self.targets.mean(axis=1) * has_bias
        rows = self.rows - mean_x[:, None, :].astype(self.rows.dtype)
        return RowProblem(rows, self.targets - mean_t[:, None, :], self.weight, mean_x, mean_t)

    def error(self, weights: Array, bias: Array) -> float:
        """Mean squared error over all rows, summed over the output units."""
        residual = self.rows @ weights.transpose(0, 2, 1) + bias[:, None, :] - self.targets
        return float(np.vdot(residual, residual)) / self.weight


def total_of(parts: Iterable[Moments | RowMoments]) -> Moments | RowMoments | None:
    """Moments of all the parts' rows together, added in float64; None of no parts."""
    summed: Moments | None = None
    rows: list[RowMoments] = []
    for part in parts:
        if isinstance(part, RowMoments):
            rows.append(part)
        elif summed is None:
            summed = part.wide()
        else:
            summed += part
    if not rows:
        return summed
    return RowMoments(
        np.concatenate([part.rows for part in rows], axis=1),
        np.concatenate([part.targets for part in rows], axis=1),
    )
