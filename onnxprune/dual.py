"""Refit where rows are fewer than columns: least squares in as many unknowns as there are rows.

With X the centred rows [n, d], T their targets and W₀ the weights that the ridge pulls to, the best weights
of an output unit that keeps the columns K are

    w_K = w₀_K + X_Kᵀ α        (X_K X_Kᵀ + nλI) α = t − X_K w₀_K

so that n multipliers α stand for d weights. Neither T Xᵀ nor X Xᵀ's d × d twin is ever formed, and units are
gone through a few at a time, all steps of each while it is in the cache: fc1 of VGG16 (103 million weights)
takes a matrix of float32 for its weights and one for their scores, no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.refit import RIDGE, STEPS, Block, Mask, Problem, Refit, average_columns, blocks, raised
from onnxprune.statistics import Samples
from onnxprune.statistics.factors import solved_damped
from onnxprune.threads import in_shares

Array = npt.NDArray[Any]

# Conjugate-gradient steps after a round and before the first, the latter of each where a step takes more
# than `_DEAR` flops.
_STEPS = (6, 3), (STEPS, 6)
_DEAR = 2e9
_STEPS_LAST = 200  # where a direct solution would be dearer
_EXACT_SHARE = 0.5  # that is, costs more than this share of so many steps
_BLOCK = 1 << 21  # weights that are worked on at once: they stay in the cache


@dataclass
class RowProblem:
    """minimise ½ |X Wᵀ − T|² / weight: the rows themselves, centred if a bias is free.

    Attributes:
        rows: X, [groups, rows, d_in].
        targets: T, float64 [groups, rows, d_out].
        weight: the number of rows, or what an average counts for it.
        mean_x: what X was centred by, float64 [groups, d_in]; zeros without a bias.
        mean_t: what T was centred by, float64 [groups, d_out]; likewise.
    """

    rows: Array
    targets: Array
    weight: float
    mean_x: Array
    mean_t: Array

    @property
    def gram(self) -> Samples:
        """The rows as a factor."""
        return Samples(self.rows, self.weight)

    @property
    def variance(self) -> Array:
        """Mean square of the centred T, float64 [groups, d_out]."""
        variance: Array = np.einsum("gno,gno->go", self.targets, self.targets) / self.weight
        return variance

    def bias(self, weights: Array) -> Array:
        """t̄ − W x̄, [groups, d_out]."""
        bias: Array = self.mean_t - np.einsum("goi,gi->go", weights, self.mean_x)
        return bias

    def error(self, weights: Array) -> Array:
        """Mean squared error of each output unit, [groups, d_out]."""
        residual = self.rows @ weights.transpose(0, 2, 1) - self.targets
        error: Array = np.einsum("gno,gno->go", residual, residual) / self.weight
        return error

    def products(self, change: Array) -> Array:
        """Δ A Δᵀ [groups, d_out, d_out] of a change Δ of the weights."""
        moved = (self.rows @ change.transpose(0, 2, 1)).astype(np.float64, copy=False)
        products: Array = moved.transpose(0, 2, 1) @ moved / self.weight
        return products


class Dual:
    """Least squares of one layer at a fixed ridge, as `Refit` does it from moments.

    Weights come in the dtype of `reference`. A fit starts from the multipliers of the one before, whatever
    weights it is given: those are the same weights.
    """

    def __init__(self, problem: RowProblem, reference: Array, ridge: float = RIDGE) -> None:
        """Take `reference` as W₀ [groups, d_out, d_in], and λ as `ridge` times the mean of A's diagonal."""
        self.problem = problem
        self._reference = reference
        self._ridge, self._damped = raised(problem.gram, problem.mean_x, ridge)
        groups, d_out, _ = reference.shape
        self._multipliers = np.zeros((groups, d_out, problem.rows.shape[1]), np.float32)

    def saliency(self, weights: Array) -> Array:
        """w²/[(XᵀX/n + λI)⁻¹]_jj, [groups, d_out, d_in], in the dtype of `weights`; see `Refit.saliency`."""
        scores = weights * weights
        scores *= self._reciprocal.astype(weights.dtype)[:, None, :]
        return scores

    @cached_property
    def _reciprocal(self) -> Array:
        return 1.0 / self._damped.inverse_diagonal()

    def improve(self, weights: Array, kept: Mask, steps: int = STEPS, tolerance: float = 1e-5) -> Array:
        """A few conjugate-gradient steps from the last fit, in float32.

        Args:
            weights: the last fit's; before there was one, only their shape counts.
            kept: mask of the same shape, [groups, d_out, d_in].
            steps: at most so many.
            tolerance: a unit stops earlier where its residual is below this, relative to that of α = 0.

        Returns:
            [groups, d_out, d_in] in the dtype of W₀, zero where not kept.
        """
        return self._iterated(kept, steps, tolerance, self._multipliers, weights)

    def advance(self, weights: Array, kept: Mask, first: bool = False) -> Array:
        """`improve` as far as is needed after a round, or before the first: less where a step is dear."""
        dear = 4.0 * self.problem.rows.shape[1] * kept.size > _DEAR
        return self.improve(weights, kept, _STEPS[first][dear])

    def near(self, weights: Array, kept: Mask) -> Array:
        """`improve`; moments alone can be aimed anew so cheaply that an exact fit is worth it."""
        return self.improve(weights, kept)

    def exact(self, weights: Array, kept: Mask) -> Array:
        """The least-squares weights, each unit solved for its columns or for its rows, whichever are fewer.

        Args:
            weights: not needed; `Refit` would start from them.
            kept: mask [groups, d_out, d_in].

        Returns:
            [groups, d_out, d_in] in the dtype of W₀, zero where not kept.
        """
        rows = self.problem.rows.shape[1]
        parts, gram = blocks(kept), self.problem.gram
        iterations = 4.0 * _STEPS_LAST * rows * kept.size  # flops
        if sum(gram.flops_within(len(b.columns), len(b.rows)) for b in parts) > _EXACT_SHARE * iterations:
            return self._iterated(kept, _STEPS_LAST, 1e-8, np.zeros(self._multipliers.shape))
        fitted = np.zeros_like(self._reference)

        def fit(block: Block) -> None:
            own = self.problem.rows[block.group][:, block.columns].astype(np.float64)
            targets = self.problem.targets[block.group][:, block.rows].T
            near = self._reference[block.places].astype(np.float64)
            fitted[block.places] = near + self._correction(own, targets - near @ own.T, block.group)

        in_shares(fit, parts, min(rows, average_columns(parts)))
        return fitted

    def _correction(self, own: Array, missing: Array, group: int) -> Array:
        """What to add to W₀ on some columns, [units, columns]: own [rows, columns], missing [units, rows]."""
        damping = self.problem.weight * float(self._ridge[group])
        if own.shape[0] < own.shape[1]:
            correction: Array = solved_damped(own @ own.T, damping, missing) @ own
            return correction
        return solved_damped(own.T @ own, damping, missing @ own)

    def _iterated(
        self, kept: Mask, steps: int, tolerance: float, multipliers: Array, weights: Array | None = None
    ) -> Array:
        """Weights after conjugate gradients from `multipliers`, which they leave at their own.

        `weights` are those that the multipliers stand for, where they are not zero.
        """
        fitted = np.empty_like(self._reference)
        dtype = multipliers.dtype
        for group in range(len(kept)):
            rows = self.problem.rows[group].astype(dtype, copy=False)
            targets = self.problem.targets[group].T.astype(dtype)
            damping = dtype.type(self.problem.weight * float(self._ridge[group]))
            for part in _parts(*kept.shape[1:]):
                mask = kept[group, part].astype(dtype)
                near = self._reference[group, part] * mask
                alpha = multipliers[group, part]
                now = near if weights is None or not alpha.any() else weights[group, part] * mask
                residual = targets[part] - now @ rows.T
                _conjugate_gradients(rows, mask, damping, residual, alpha, tolerance, steps)
                change = alpha @ rows
                change *= mask
                np.add(near, change, out=fitted[group, part], casting="same_kind")
        return fitted


def pays(rows: int, columns: int) -> bool:
    """Whether steps on the rows themselves cost less than on their gram, which they go through once."""
    return 2 * rows < columns


def least_squares(problem: Problem | RowProblem, reference: Array, ridge: float = RIDGE) -> Refit | Dual:
    """The least squares of `problem`: of moments, or of the rows themselves.

    Raises:
        StatisticsError: the moments are indefinite by more than rounding.
    """
    if isinstance(problem, RowProblem):
        return Dual(problem, reference, ridge)
    return Refit(problem, reference, ridge)


def _parts(d_out: int, d_in: int) -> Iterator[slice]:
    """Output units by the block."""
    step = max(1, _BLOCK // d_in)
    return (slice(start, start + step) for start in range(0, d_out, step))


def _conjugate_gradients(
    rows: Array, mask: Array, damping: Any, residual: Array, solution: Array, tolerance: float, steps: int
) -> None:
    """Conjugate gradients in the weights X_Kᵀα, for every unit on its own, in place, from `solution`.

    A direction in the weights is X_Kᵀq, the gradient X_Kᵀg and their inner products q·Kg with K = X M Xᵀ, so
    that q and g stand for both. Conjugate gradients in α itself would chase what no weight can reach: where
    a unit keeps fewer columns than there are rows, K is singular.

    Args:
        rows: X, [rows, d_in].
        mask: M of each unit as numbers, [units, d_in].
        damping: nλ, a number of their dtype.
        residual: t − X_K w_K of the weights that `solution` stands for, [units, rows].
        solution: α, [units, rows].
        tolerance: a unit is done when its gradient is below this, relative to the first one.
        steps: at most so many.
    """

    def image_of(vectors: Array) -> Array:
        spread = vectors @ rows
        spread *= mask
        image: Array = spread @ rows.T
        return image

    gradient = residual - damping * solution
    image = image_of(gradient)
    direction, moved, norm = gradient.copy(), image, _dots(gradient, image)
    goal = np.maximum(tolerance**2 * norm, np.finfo(residual.dtype).tiny)
    for _ in range(steps):
        curvature = _dots(moved, moved) + damping * _dots(direction, moved)
        running = (norm > goal) & (curvature > 0)
        if not running.any():
            return
        step = _quotients(norm, curvature, running)
        solution += step * direction
        gradient -= step * (moved + damping * direction)
        image = image_of(gradient)
        before, norm = norm, _dots(gradient, image)
        turn = _quotients(norm, before, running)
        direction = gradient + turn * direction
        moved = image + turn * moved


def _dots(one: Array, other: Array) -> Array:
    dots: Array = np.einsum("un,un->u", one, other)
    return dots


def _quotients(above: Array, below: Array, running: Mask) -> Array:
    """[units, 1]; zero for units that are done."""
    return np.divide(above, below, out=np.zeros_like(above), where=running)[:, None]
