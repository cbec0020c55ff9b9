"""Surgeons: what the kept weights change to when the others are cut, from the Kronecker factors alone.

    paper   ΔW = −G⁻¹ C A⁻¹, C = w_q / ([G⁻¹]_ii [A⁻¹]_jj) at the pruned q          MLPrune, eq. 7
    joint   minimise ½ tr(G Δ A Δᵀ) over the kept entries, Δ = −W at the pruned ones

`paper` adds up the optimal answers to single removals; it ignores that all of them happen together. `joint`
is the exact answer, by conjugate gradients with the diagonal preconditioner 1/(G_ii A_jj): two products an
iteration. Matrices are [groups, d_out, d_in + 1], the bias as last column, which is never pruned; A and G are
damped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.solve import conjugate_gradients
from onnxprune.statistics import LayerStatistics, damping_pair

Array = npt.NDArray[Any]


def paper_surgeon(weights: Array, kept: Array, statistics: LayerStatistics, damping: float) -> Array:
    """W after the paper's update (MLPrune, eq. 7), exactly zero where not `kept`.

    Args:
        weights: [groups, d_out, d_in + 1], float64.
        kept: bool, same shape; the bias column all True.
        statistics: A and, where a gradient reaches the layer, G.
        damping: relative λ.

    Raises:
        StatisticsError: a damped factor is not positive definite.
    """
    activations, gradients = statistics.activations, statistics.gradients
    damp_a, damp_g = damping_pair(activations, gradients, damping)
    damped_a = activations.damped(damp_a)
    diagonal = damped_a.inverse_diagonal()[:, None, :]
    damped_g = gradients.damped(damp_g) if gradients is not None else None
    if damped_g is not None:
        diagonal = diagonal * damped_g.inverse_diagonal()[:, :, None]
    update = damped_a.solve(np.where(kept, 0.0, weights / diagonal))
    if damped_g is not None:
        update = damped_g.solve(update.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.where(kept, weights - update, 0.0)


def joint_surgeon(
    weights: Array,
    kept: Array,
    statistics: LayerStatistics,
    damping: float,
    *,
    tolerance: float = 1e-10,
    iterations: int = 1000,
) -> Array:
    """W that minimises the layer's quadratic loss given what is kept; exactly zero elsewhere.

    Args:
        weights: [groups, d_out, d_in + 1], float64.
        kept: bool, same shape; the bias column all True.
        statistics: A and, where a gradient reaches the layer, G.
        damping: relative λ.
        tolerance: stop when the preconditioned residual has fallen by this factor.
        iterations: stop after so many.
    """
    damp_a, damp_g = damping_pair(statistics.activations, statistics.gradients, damping)

    def curvature(delta: Array) -> Array:
        return quadratic_product(delta, statistics, damp_a, damp_g)

    diagonal = (statistics.activations.diagonal() + damp_a[:, None])[:, None, :]
    if statistics.gradients is not None:
        diagonal = diagonal * (statistics.gradients.diagonal() + damp_g[:, None])[:, :, None]
    cut = np.where(kept, 0.0, -weights)
    start = np.zeros_like(weights)
    delta = conjugate_gradients(curvature, -curvature(cut), start, kept, diagonal, tolerance, iterations)
    return np.where(kept, weights + delta, 0.0)


def quadratic_product(delta: Array, statistics: LayerStatistics, damp_a: Array, damp_g: Array) -> Array:
    """(G + λ_G I) Δ (A + λ_A I), [groups, d_out, d_in + 1]; the gradient of the layer's quadratic loss."""
    product: Array = statistics.activations.times(delta) + damp_a[:, None, None] * delta
    if statistics.gradients is not None:
        turned = product.transpose(0, 2, 1)
        product = statistics.gradients.times(turned).transpose(0, 2, 1) + damp_g[:, None, None] * product
    return product
