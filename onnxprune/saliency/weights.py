"""Saliency of single weights: what removing each one alone costs. Pure numpy, layout [groups, d_out, d_in].

    magnitude   |w|
    random      U[0, 1)
    wanda       |w| √A_jj                                    Sun et al. 2023
    obd         ½ T w² A_jj G_ii                             LeCun et al. 1990, diagonal of the Fisher
    mlprune     ½ T w² / ([A⁻¹]_jj [G⁻¹]_ii)                 MLPrune, eq. 7 with the factors of eq. 13

Where no gradient reaches a layer, G is the identity: the layer's own squared error stands for the loss.
`normalised` divides by the layer's sum (MLPrune, eq. 14).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.options import Saliency
from onnxprune.statistics import LayerStatistics, damping_pair

Array = npt.NDArray[Any]


def saliency(
    name: Saliency,
    weights: Array,
    statistics: LayerStatistics | None,
    damping: float,
    rng: np.random.Generator,
) -> Array:
    """Saliency of every weight, float64 [groups, d_out, d_in]; larger is more important.

    Args:
        name: one of the table above.
        weights: [groups, d_out, d_in].
        statistics: A and G of the layer; `magnitude` and `random` need none.
        damping: λ of the factored Tikhonov damping, relative (see `damping_pair`).
        rng: used by `random` alone.

    Raises:
        StatisticsError: a damped factor is not positive definite.
    """
    return SALIENCIES[name](weights, statistics, damping, rng)


def normalised(scores: Array) -> Array:
    """Scores divided by the layer's sum (MLPrune, eq. 14); a layer of zeros stays one."""
    total = scores.sum()
    return scores / total if total > 0 else scores


def _known(statistics: LayerStatistics | None) -> LayerStatistics:
    assert statistics is not None  # the pipeline gathers statistics for every saliency that needs them
    return statistics


def _magnitude(weights: Array, _: LayerStatistics | None, __: float, ___: np.random.Generator) -> Array:
    return np.abs(weights)


def _random(weights: Array, _: LayerStatistics | None, __: float, rng: np.random.Generator) -> Array:
    return rng.random(weights.shape)


def _wanda(weights: Array, statistics: LayerStatistics | None, _: float, __: np.random.Generator) -> Array:
    scale = np.sqrt(_known(statistics).activations.diagonal()[:, None, :-1])
    scores: Array = np.abs(weights) * scale
    return scores


def _obd(weights: Array, statistics: LayerStatistics | None, _: float, __: np.random.Generator) -> Array:
    known = _known(statistics)
    input_side = known.activations.diagonal()[:, None, :-1]
    output_side = known.gradients.diagonal()[:, :, None] if known.gradients is not None else 1.0
    scores: Array = 0.5 * known.positions * weights**2 * input_side * output_side
    return scores


def _mlprune(
    weights: Array, statistics: LayerStatistics | None, damping: float, _: np.random.Generator
) -> Array:
    known = _known(statistics)
    damp_a, damp_g = damping_pair(known.activations, known.gradients, damping)
    scores: Array = np.square(weights)
    scores *= 0.5 * known.positions
    scores /= known.activations.damped(damp_a).inverse_diagonal()[:, None, :-1]
    if known.gradients is not None:
        scores /= known.gradients.damped(damp_g).inverse_diagonal()[:, :, None]
    return scores


_Score = Callable[[Array, LayerStatistics | None, float, np.random.Generator], Array]

SALIENCIES: dict[Saliency, _Score] = {
    "mlprune": _mlprune,
    "obd": _obd,
    "wanda": _wanda,
    "magnitude": _magnitude,
    "random": _random,
}

NEEDS_GRADIENTS = frozenset({"mlprune", "obd"})
NEEDS_STATISTICS = NEEDS_GRADIENTS | {"wanda"}
