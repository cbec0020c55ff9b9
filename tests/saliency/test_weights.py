"""Saliencies against brute force with the dense curvature H = T · A ⊗ G."""

import numpy as np
import pytest

from onnxprune.saliency import NEEDS_STATISTICS, SALIENCIES, normalised, saliency
from onnxprune.statistics import Gram, LayerStatistics, damping_pair

RNG = np.random.default_rng(0)
DOUBLE = 1e-9  # double precision times the condition of H, about 1e5


def statistics(groups=2, d_out=3, d_in=4, rows=60.0, samples=20.0, gradients=True, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((groups, 30, d_in + 1)) * rng.uniform(0.3, 2, d_in + 1)
    a[:, :, -1] = 1
    g = rng.standard_normal((groups, 30, d_out)) * rng.uniform(0.3, 2, d_out)
    factors = [Gram(m.transpose(0, 2, 1) @ m * rows / 30, rows) for m in (a, g)]
    return LayerStatistics(factors[0], factors[1] if gradients else None, rows, samples)


def dense_curvature(known, damping, group):
    """T · (G + λ_G I) ⊗ (A + λ_A I) over the rows of W, the bias as last column."""
    damp_a, damp_g = damping_pair(known.activations, known.gradients, damping)
    a = known.activations.mean()[group]
    a = a + damp_a[group] * np.eye(len(a))
    g = np.eye(3)
    if known.gradients is not None:
        g = known.gradients.mean()[group] + damp_g[group] * np.eye(3)
    return known.positions * np.kron(g, a)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("damping", [1e-4, 1e-1])
def test_mlprune_is_the_obs_loss_of_each_weight_alone(gradients, damping):
    known = statistics(gradients=gradients)
    weights = RNG.standard_normal((2, 3, 4))
    scores = saliency("mlprune", weights, known, damping, RNG)
    for group in range(2):
        inverse = np.linalg.inv(dense_curvature(known, damping, group))
        diagonal = np.diag(inverse).reshape(3, 5)[:, :-1]
        np.testing.assert_allclose(scores[group], weights[group] ** 2 / (2 * diagonal), rtol=DOUBLE)


@pytest.mark.parametrize("gradients", [True, False])
def test_obd_is_the_diagonal_of_the_same_curvature(gradients):
    known = statistics(gradients=gradients)
    weights = RNG.standard_normal((2, 3, 4))
    scores = saliency("obd", weights, known, 1e-12, RNG)
    for group in range(2):
        diagonal = np.diag(dense_curvature(known, 1e-14, group)).reshape(3, 5)[:, :-1]
        np.testing.assert_allclose(
            scores[group], 0.5 * weights[group] ** 2 * diagonal, rtol=1e-6
        )  # √λ is 1e-7


def test_wanda_is_the_weight_times_the_norm_of_its_input():
    known, weights = statistics(), RNG.standard_normal((2, 3, 4))
    norm = np.sqrt(np.einsum("gii->gi", known.activations.mean())[:, :-1])
    np.testing.assert_allclose(saliency("wanda", weights, known, 1.0, RNG), np.abs(weights) * norm[:, None])


def test_magnitude():
    weights = RNG.standard_normal((2, 3, 4))
    np.testing.assert_array_equal(saliency("magnitude", weights, None, 1.0, RNG), np.abs(weights))


def test_random_is_the_generators():
    weights = np.zeros((2, 3, 4))
    one, same = (saliency("random", weights, None, 1.0, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one.min() >= 0 and one.max() < 1 and len(np.unique(one)) == one.size


@pytest.mark.parametrize("name", SALIENCIES)
def test_every_saliency_is_a_number_for_every_weight(name):
    known, weights = statistics(), RNG.standard_normal((2, 3, 4))
    scores = saliency(name, weights, known if name in NEEDS_STATISTICS else None, 1e-4, RNG)
    assert scores.shape == weights.shape and scores.dtype == np.float64 and (scores >= 0).all()


@pytest.mark.parametrize("name", ["mlprune", "obd"])
def test_losses_scale_with_the_square_of_the_weights(name):
    known, weights = statistics(), RNG.standard_normal((2, 3, 4))
    one, two = (saliency(name, factor * weights, known, 1e-4, RNG) for factor in (1, -3))
    np.testing.assert_allclose(two, 9 * one)


def test_a_unit_that_never_fires_has_finite_scores():
    known = statistics()
    known.activations.total[:, 1, :] = known.activations.total[:, :, 1] = 0
    scores = saliency("mlprune", np.ones((2, 3, 4)), known, 1e-4, RNG)
    assert np.isfinite(scores).all()
    others = np.delete(scores, 1, axis=2)
    assert scores[:, :, 1].max() < others.min()  # only the damping speaks for its weights


def test_normalised_sums_to_one_and_leaves_zeros():
    scores = normalised(RNG.random((2, 3, 4)))
    assert scores.sum() == pytest.approx(1)
    assert (normalised(np.zeros((1, 2, 2))) == 0).all()
