"""Kronecker factors: the second moments A (of ā) and G (of ∂L/∂s), in the form that is smaller.

A `Factor` holds sums over rows, so that batches, shards and machines add up. Two forms behind one interface:

    Gram      Σ x xᵀ          [groups, d, d]      when rows are many
    Samples   the x themselves [groups, rows, d]  when d exceeds the rows there will be (VGG16's fc1: d = 25,089)

`Damped` is (factor + λI) with its inverse; for Samples by Woodbury, exactly:
(XᵀX/n + λI)⁻¹ = (I − Xᵀ(nλI + XXᵀ)⁻¹X)/λ. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import scipy.linalg

from onnxprune.errors import StatisticsError

Array = npt.NDArray[Any]


class Factor(Protocol):
    """Second moment of rows; `weight` is the number of rows (or what an average counts for one)."""

    weight: float

    @property
    def groups(self) -> int: ...
    @property
    def size(self) -> int: ...
    def merge(self, other: Self, decay: float = 1.0, share: float = 1.0) -> Self: ...
    def mean(self) -> Array: ...
    def diagonal(self) -> Array: ...
    def times(self, rows: Array, group: int) -> Array: ...
    def damped(self, damping: float, group: int) -> Damped: ...


@dataclass
class Gram:
    """Σ x xᵀ over rows, float64 [groups, d, d]."""

    total: Array
    weight: float

    @property
    def groups(self) -> int:
        """Number of independent blocks."""
        return int(self.total.shape[0])

    @property
    def size(self) -> int:
        """d."""
        return int(self.total.shape[1])

    def merge(self, other: Gram, decay: float = 1.0, share: float = 1.0) -> Gram:
        """decay · self + share · other: the sum, or one step of an exponential average."""
        return Gram(decay * self.total + share * other.total, decay * self.weight + share * other.weight)

    def mean(self) -> Array:
        """mean x xᵀ, [groups, d, d]."""
        return self.total / self.weight

    def diagonal(self) -> Array:
        """mean x², [groups, d]."""
        return np.einsum("gii->gi", self.total) / self.weight

    def times(self, rows: Array, group: int) -> Array:
        """`rows` [m, d] times the mean."""
        product: Array = rows @ self.total[group] / self.weight
        return product

    def damped(self, damping: float, group: int) -> Damped:
        """(mean + damping · I) of one group."""
        matrix = self.total[group] / self.weight
        matrix.flat[:: self.size + 1] += damping
        return DenseDamped(matrix)


@dataclass
class Samples:
    """The rows themselves, float32 or float64 [groups, rows, d]."""

    rows: Array
    weight: float

    @property
    def groups(self) -> int:
        """Number of independent blocks."""
        return int(self.rows.shape[0])

    @property
    def size(self) -> int:
        """d."""
        return int(self.rows.shape[2])

    def merge(self, other: Samples, decay: float = 1.0, share: float = 1.0) -> Samples:
        """Rows of both; scaled by the roots of `decay` and `share`, which scales their squares."""
        rows = np.concatenate([np.sqrt(decay) * self.rows, np.sqrt(share) * other.rows], axis=1)
        return Samples(rows.astype(self.rows.dtype), decay * self.weight + share * other.weight)

    def mean(self) -> Array:
        """mean x xᵀ, [groups, d, d]; only for d that fits."""
        rows = self.rows.astype(np.float64)
        return rows.transpose(0, 2, 1) @ rows / self.weight

    def diagonal(self) -> Array:
        """mean x², [groups, d]."""
        return np.einsum("gnd,gnd->gd", self.rows, self.rows, dtype=np.float64) / self.weight

    def times(self, rows: Array, group: int) -> Array:
        """`rows` [m, d] times the mean, without forming it."""
        own = self.rows[group].astype(np.float64)
        product: Array = (rows @ own.T) @ own / self.weight
        return product

    def damped(self, damping: float, group: int) -> Damped:
        """(mean + damping · I) of one group, by Woodbury."""
        return WoodburyDamped(self.rows[group].astype(np.float64), self.weight, damping)


class Damped(Protocol):
    """A damped factor of one group, ready to be inverted."""

    def inverse_diagonal(self) -> Array: ...
    def solve(self, rows: Array) -> Array: ...


class DenseDamped:
    """A symmetric positive definite matrix and its Cholesky inverse."""

    def __init__(self, matrix: Array) -> None:
        try:
            self._factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
        except scipy.linalg.LinAlgError as error:
            raise StatisticsError("a factor is not positive definite; raise --damping") from error
        self._size = len(matrix)

    def inverse_diagonal(self) -> Array:
        """[M⁻¹]_jj, [d]."""
        inverse, _ = scipy.linalg.lapack.dpotri(self._factor[0], lower=1)
        return np.diag(inverse).copy()

    def solve(self, rows: Array) -> Array:
        """`rows` [m, d] times M⁻¹."""
        solved: Array = scipy.linalg.cho_solve(self._factor, rows.T, check_finite=False).T
        return solved


class WoodburyDamped:
    """(XᵀX/n + λI) through the smaller matrix nλI + XXᵀ."""

    def __init__(self, rows: Array, weight: float, damping: float) -> None:
        inner = rows @ rows.T
        inner.flat[:: len(inner) + 1] += weight * damping
        self._rows, self._damping = rows, damping
        self._factor = scipy.linalg.cho_factor(inner, lower=True, check_finite=False)

    def inverse_diagonal(self) -> Array:
        """[M⁻¹]_jj, [d]."""
        half = scipy.linalg.solve_triangular(self._factor[0], self._rows, lower=True, check_finite=False)
        diagonal: Array = (1.0 - np.einsum("nd,nd->d", half, half)) / self._damping
        return diagonal

    def solve(self, rows: Array) -> Array:
        """`rows` [m, d] times M⁻¹."""
        inner = scipy.linalg.cho_solve(self._factor, self._rows @ rows.T, check_finite=False)
        solved: Array = (rows - inner.T @ self._rows) / self._damping
        return solved


def damping_pair(activations: Factor, gradients: Factor | None, damping: float, group: int) -> tuple[float, float]:
    """Factored Tikhonov damping with the trace ratio π (Martens & Grosse 2015, §6.3), relative to the factors.

    λ = `damping` · mean eigenvalue of A ⊗ G, split as π√λ for A and √λ/π for G with
    π² = (tr A / d_A) / (tr G / d_G). Without G (curvature taken as identity) A alone is damped.

    Returns:
        The two numbers to add to the diagonals of A and G of that group; at least 1e-12 of nothing: a factor that
        is zero throughout gets a tiny positive one, so that it stays invertible.
    """
    mean_a = float(activations.diagonal()[group].mean())
    if gradients is None:
        return max(damping * mean_a, 1e-300), 0.0
    mean_g = float(gradients.diagonal()[group].mean())
    root = np.sqrt(damping)
    return max(root * mean_a, 1e-150), max(root * mean_g, 1e-150)
