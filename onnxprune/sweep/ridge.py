"""The ridge λ of a refit: where samples are few for the width, chosen on held-back rows.

With 1,000 images and 785 columns plain least squares fits noise; the residual on rows that were not fitted
says how much to trust them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.dual import least_squares
from onnxprune.refit import FEW_ROWS, RIDGE, choose, some_outputs
from onnxprune.rounds import Round, thinned
from onnxprune.sweep.sums import Moments, RowMoments

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_RIDGES = (RIDGE, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# They are tried on output units of so many weights in all, but on 64 at least: one number is chosen for all.
_WEIGHTS = 1 << 19


def plentiful(moments: Moments | RowMoments) -> bool:
    """Whether there are rows enough for the columns to be fitted without holding any back."""
    return moments.weight > FEW_ROWS * moments.size


def ridge(
    gathered: tuple[Moments | RowMoments, Moments | RowMoments | None],
    reference: Array,
    weights: Array,
    kept: Mask,
    rounds: Sequence[Round],
    has_bias: bool,
    most: int | None = None,
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
        most: output units to try them on, where that is fewer than usual.
    """
    fit, held = gathered
    if held is None or plentiful(fit):
        return RIDGE
    every = reference.shape[1]
    outputs = some_outputs(every, min(most or every, max(64, _WEIGHTS // reference.shape[2])))
    fit, held = fit.of(outputs), held.of(outputs)
    reference, weights, kept = reference[:, outputs], weights[:, outputs], kept[:, outputs]
    training = fit.problem(has_bias)
    few = thinned(list(rounds)[::-1][::4][::-1], len(outputs) / every)
    errors = []
    for candidate in _RIDGES:
        refit = least_squares(training, reference, candidate)
        chosen, rough = choose(refit, weights, kept, few)
        rough = refit.improve(rough, chosen)
        del refit  # matrices as large as the gram, three of them, before the next ones are made
        errors.append(held.error(rough, training.bias(rough)))
    return _RIDGES[int(np.argmin(errors))]
