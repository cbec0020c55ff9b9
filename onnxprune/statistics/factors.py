"""Kronecker factors: the second moments A (of ā) and G (of ∂L/∂s), in the form that is smaller.

A `Factor` holds sums over rows, so that batches, shards and machines add up. Two forms behind one interface:

    Gram      Σ x xᵀ             [groups, d, d]      when rows are many
    Samples   the x themselves   [groups, rows, d]   when d exceeds the rows (VGG16's fc1: d = 25,089)

`damped` gives (factor + λI), one λ a group, ready to be inverted; for Samples by Woodbury, exactly:
(XᵀX/n + λI)⁻¹ = (I − Xᵀ(nλI + XXᵀ)⁻¹X)/λ. Sums, products and inverses are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg

from onnxprune import algebra

Array = npt.NDArray[Any]


class Damped(Protocol):
    """A damped factor: symmetric positive definite in every group."""

    def inverse_diagonal(self) -> Array:
        """[M⁻¹]_jj, [groups, d]."""
        ...

    def solve(self, rows: Array) -> Array:
        """`rows` [groups, m, d] times M⁻¹."""
        ...


@dataclass
class Gram:
    """Σ x xᵀ over `weight` rows: `total` [groups, d, d], float64."""

    total: Array
    weight: float

    @property
    def array(self) -> Array:
        """What it holds."""
        return self.total

    @property
    def size(self) -> int:
        """The width d."""
        return int(self.total.shape[1])

    def merge(self, other: Gram, decay: float = 1.0, share: float = 1.0) -> Gram:
        """Sum of decay · self and share · other: plain, or one step of an exponential average."""
        return Gram(decay * self.total + share * other.total, decay * self.weight + share * other.weight)

    def mean(self) -> Array:
        """Mean of x xᵀ, [groups, d, d]."""
        return self.total / self.weight

    def diagonal(self) -> Array:
        """Mean of x², [groups, d]."""
        diagonal: Array = np.einsum("gii->gi", self.total) / self.weight
        return diagonal

    def times(self, rows: Array) -> Array:
        """`rows` [groups, m, d] times the mean."""
        product: Array = rows @ self.total
        if self.weight != 1.0:
            product /= self.weight
        return product

    def roughly_times(self) -> algebra.Product:
        """What multiplies float32 rows by the mean, in half the time, where rounding does not matter."""
        return algebra.times(self.mean().astype(np.float32))

    def within(self, group: int, columns: Array, damping: float, rows: Array) -> Array:
        """`rows` [m, columns] times the inverse of those columns' own mean plus `damping` times I.

        Raises:
            StatisticsError: that is not positive definite.
        """
        return solved_damped(self.total[group][columns[:, None], columns] / self.weight, damping, rows)

    def flops_within(self, columns: int, rows: int) -> float:
        """What `within` costs."""
        return columns**3 / 3 + 2.0 * rows * columns**2

    def damped(self, damping: Array) -> Damped:
        """The mean plus damping [groups] times I.

        Raises:
            StatisticsError: that is not positive definite.
        """
        matrices = self.mean()
        np.einsum("gii->gi", matrices)[...] += damping[:, None]
        return _DampedGram(matrices)  # which takes them for its own


@dataclass
class Samples:
    """The rows themselves, float32 or float64 [groups, rows, d], that stand for `weight` rows."""

    rows: Array
    weight: float

    @property
    def array(self) -> Array:
        """What it holds."""
        return self.rows

    @property
    def size(self) -> int:
        """The width d."""
        return int(self.rows.shape[2])

    def merge(self, other: Samples, decay: float = 1.0, share: float = 1.0) -> Samples:
        """Rows of both; scaled by the roots of `decay` and `share`, which scales their squares."""
        parts = [
            self.rows * np.sqrt(decay, dtype=self.rows.dtype),
            other.rows * np.sqrt(share, dtype=self.rows.dtype),
        ]
        return Samples(np.concatenate(parts, axis=1), decay * self.weight + share * other.weight)

    def mean(self) -> Array:
        """Mean of x xᵀ, [groups, d, d]; only for d that fits."""
        rows = self.rows.astype(np.float64)
        return rows.transpose(0, 2, 1) @ rows / self.weight

    def diagonal(self) -> Array:
        """Mean of x², [groups, d]."""
        squares: Array = np.einsum("gnd,gnd->gd", self.rows, self.rows, dtype=np.float64)
        return squares / self.weight

    def times(self, rows: Array) -> Array:
        """`rows` [groups, m, d] times the mean, without forming it."""
        own = self.rows.astype(rows.dtype)
        product: Array = (rows @ own.transpose(0, 2, 1)) @ own
        product /= self.weight
        return product

    def flops_within(self, columns: int, rows: int) -> float:
        """What it costs to solve for `rows` on some `columns`, by Woodbury where the samples are fewer."""
        samples = self.rows.shape[1]
        less, more = sorted((samples, columns))
        return float(less**3 / 3 + 2.0 * less**2 * (more + rows) + 4.0 * rows * samples * columns)

    def damped(self, damping: Array) -> Damped:
        """The mean plus damping [groups] times I, by Woodbury.

        Raises:
            StatisticsError: that is not positive definite.
        """
        return _DampedSamples(self.rows.astype(np.float64), self.weight, damping)


#: A second moment of rows; `weight` is the number of rows (or what an average counts for one).
Factor = Gram | Samples


class _DampedGram:
    def __init__(self, matrices: Array) -> None:
        self._factors = [algebra.factored(matrix) for matrix in matrices]

    def inverse_diagonal(self) -> Array:
        return np.stack([factor.inverse_diagonal() for factor in self._factors])

    def solve(self, rows: Array) -> Array:
        return np.stack([factor.solve(block) for factor, block in zip(self._factors, rows, strict=True)])


class _DampedSamples:
    def __init__(self, rows: Array, weight: float, damping: Array) -> None:
        inner = rows @ rows.transpose(0, 2, 1)
        np.einsum("gnn->gn", inner)[...] += weight * damping[:, None]
        self._rows, self._damping = rows, damping
        self._factors = [algebra.cholesky(matrix) for matrix in inner]

    def inverse_diagonal(self) -> Array:
        halves = [
            scipy.linalg.solve_triangular(factor, rows, lower=True, check_finite=False)
            for factor, rows in zip(self._factors, self._rows, strict=True)
        ]
        squares = np.stack([np.einsum("nd,nd->d", half, half) for half in halves])
        diagonal: Array = (1.0 - squares) / self._damping[:, None]
        return diagonal

    def solve(self, rows: Array) -> Array:
        projected = rows @ self._rows.transpose(0, 2, 1)
        inner = np.stack(
            [algebra.solved(factor, block) for factor, block in zip(self._factors, projected, strict=True)]
        )
        solved: Array = (rows - inner @ self._rows) / self._damping[:, None, None]
        return solved


def solved_damped(matrix: Array, damping: float, rows: Array) -> Array:
    """`rows` times (matrix + damping · I)⁻¹; `matrix` is overwritten.

    Raises:
        StatisticsError: that is not positive definite.
    """
    matrix.flat[:: len(matrix) + 1] += damping
    return algebra.solved(algebra.cholesky(matrix), rows)


def damping_pair(activations: Factor, gradients: Factor | None, damping: float) -> tuple[Array, Array]:
    """Factored Tikhonov damping, relative, with the trace ratio π (Martens & Grosse 2015, §6.3).

    λ = `damping` · mean eigenvalue of A ⊗ G, split as π√λ for A and √λ/π for G with
    π² = (tr A / d_A) / (tr G / d_G). Without G (curvature taken as identity) A alone is damped, by all of λ.

    Returns:
        What to add to the diagonals of A and of G, [groups] each; at least the smallest normal float32, so
        that a factor of zeros, or of squares that underflowed in the graph, stays invertible.
    """
    tiny = float(np.finfo(np.float32).tiny)
    mean_a = activations.diagonal().mean(axis=1)
    if gradients is None:
        return np.maximum(damping * mean_a, tiny), np.zeros_like(mean_a)
    root = np.sqrt(damping)
    return np.maximum(root * mean_a, tiny), np.maximum(root * gradients.diagonal().mean(axis=1), tiny)
