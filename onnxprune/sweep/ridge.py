"""The ridge λ of a refit: where samples are few for the width, chosen on held-back rows.

With 1,000 images and 785 columns plain least squares fits noise; the residual on rows that were not fitted
says how much to trust them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.refit import FEW_ROWS, RIDGE, Problem, Refit, choose, some_outputs
from onnxprune.rounds import FULL, Round, thinned
from onnxprune.sweep.moments import Moments

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_RIDGES = (RIDGE, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def plentiful(moments: Moments) -> bool:
    """Whether there are rows enough for the columns to be fitted without holding any back."""
    return moments.weight > FEW_ROWS * moments.gram.size


def ridge(
    gathered: tuple[Moments, Moments | None],
    reference: Array,
    weights: Array,
    kept: Mask,
    rounds: Sequence[Round],
    has_bias: bool,
    most: int = FULL.outputs,
) -> float:
    """The relative ridge with the least error on held-back rows; the smallest where rows are plenty.

    What is judged is the whole procedure, choice included, in a quarter of the rounds: a ridge that suits the
    dense layer may still let the choice follow the noise.

    Args:
        gathered: moments to fit on, and held-back ones or None.
        reference: W₀, [groups, d_out, d_in].
        weights: where to start, of the same shape.
        kept: mask of the same shape.
        rounds: how weights leave.
        has_bias: whether a bias follows.
        most: output units to try them on.
    """
    fit, held = gathered
    if held is None or plentiful(fit):
        return RIDGE
    every = reference.shape[1]
    outputs = some_outputs(every, most)
    fit, held = fit.of(outputs), held.of(outputs)
    reference, weights, kept = reference[:, outputs], weights[:, outputs], kept[:, outputs]
    training = fit.problem(has_bias)
    few = thinned(list(rounds)[::-1][::4][::-1], len(outputs) / every)
    errors = []
    for candidate in _RIDGES:
        refit = Refit(training, reference, candidate)
        chosen, rough = choose(refit, np.where(kept, weights, 0.0), kept, few)
        rough = refit.improve(rough, chosen)
        errors.append(_held_error(held, training, rough, has_bias))
    return _RIDGES[int(np.argmin(errors))]


def _held_error(held: Moments, training: Problem, weights: Array, has_bias: bool) -> float:
    """Squared error on the held-back rows with the bias fitted on the others."""
    raw = held.problem(False)
    bias = training.bias(weights) if has_bias else np.zeros_like(training.mean_t)
    mean_x, mean_t = held.input / held.weight, held.target / held.weight
    shifted = bias**2 - 2 * bias * mean_t + 2 * bias * np.einsum("goi,gi->go", weights, mean_x)
    fitted = np.einsum("goi,goi->go", weights, raw.gram.times(weights) - 2 * raw.cross)
    return float((raw.variance + fitted + shifted).sum())
