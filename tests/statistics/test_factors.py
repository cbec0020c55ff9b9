"""Factors: both forms are one matrix, and their damped inverses are numpy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import StatisticsError
from onnxprune.statistics import Gram, Samples, damping_pair

DOUBLE = 1e-9  # double precision times the condition of the damped matrices, which is about 1e5 at most


def both(rows, weight=None):
    weight = rows.shape[1] if weight is None else weight
    return Gram(rows.transpose(0, 2, 1) @ rows, weight), Samples(rows, weight)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 2**32 - 1), st.floats(1e-4, 10))
def test_gram_and_samples_agree_with_numpy(shape, seed, damping):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(shape)
    groups, _, d = shape
    mean = np.einsum("gni,gnj->gij", rows, rows) / shape[1]
    lambdas = damping * rng.uniform(0.5, 2, groups)
    other = rng.standard_normal((groups, 4, d))
    inverse = np.linalg.inv(mean + lambdas[:, None, None] * np.eye(d))
    for factor in both(rows):
        assert factor.size == d
        np.testing.assert_allclose(factor.mean(), mean, rtol=DOUBLE, atol=DOUBLE)
        np.testing.assert_allclose(factor.diagonal(), np.einsum("gii->gi", mean), rtol=DOUBLE, atol=DOUBLE)
        np.testing.assert_allclose(factor.times(other), other @ mean, rtol=DOUBLE, atol=DOUBLE)
        damped = factor.damped(lambdas)
        scale = np.abs(inverse).max()
        np.testing.assert_allclose(
            damped.inverse_diagonal(), np.einsum("gii->gi", inverse), atol=DOUBLE * scale
        )
        np.testing.assert_allclose(damped.solve(other), other @ inverse, atol=DOUBLE * scale * 10)


def test_woodbury_holds_for_many_more_columns_than_rows():
    rows = np.random.default_rng(0).standard_normal((2, 3, 60))
    gram, kept = (factor.damped(np.array([1e-3, 1e-1])) for factor in both(rows))
    other = np.random.default_rng(1).standard_normal((2, 5, 60))
    np.testing.assert_allclose(kept.inverse_diagonal(), gram.inverse_diagonal(), rtol=1e-9)
    np.testing.assert_allclose(kept.solve(other), gram.solve(other), rtol=1e-8, atol=1e-8)


def test_damping_changes_no_factor():
    for factor in both(np.random.default_rng(0).standard_normal((1, 5, 4))):
        before = factor.mean().copy()
        factor.damped(np.ones(1))
        factor.times(np.ones((1, 2, 4)))
        np.testing.assert_array_equal(factor.mean(), before)


def test_rough_products_are_with_the_mean_in_float32():
    rows = np.random.default_rng(0).standard_normal((2, 5, 4))
    other = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
    gram, _ = both(rows, 2.5)
    product = gram.roughly_times()(other)
    assert product.dtype == np.float32
    np.testing.assert_allclose(product, other @ gram.mean(), rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("decay, share", [(1.0, 1.0), (0.95, 0.05)])
def test_merge_scales_and_adds_in_both_forms(decay, share):
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 6, 3))
    total = decay * one.transpose(0, 2, 1) @ one + share * two.transpose(0, 2, 1) @ two
    weight = decay * 4 + share * 6
    for first, second in zip(both(one), both(two), strict=True):
        merged = first.merge(second, decay, share)
        assert merged.weight == pytest.approx(weight)
        np.testing.assert_allclose(merged.mean(), total / weight, rtol=1e-12, atol=1e-12)  # double


# -- damping
# ----------------------------------------------------------------------------------------------------


def test_damping_pair_is_factored_tikhonov():
    rng = np.random.default_rng(0)
    a, g = both(rng.standard_normal((2, 9, 4)))[0], both(rng.standard_normal((2, 9, 3)) * 7)[0]
    damp_a, damp_g = damping_pair(a, g, 1e-2)
    mean_a, mean_g = (np.einsum("gii->g", f.mean()) / f.size for f in (a, g))
    pi = np.sqrt(mean_a / mean_g)
    root = np.sqrt(1e-2 * mean_a * mean_g)  # √λ, λ relative to the mean eigenvalue of A ⊗ G
    np.testing.assert_allclose(damp_a, pi * root)
    np.testing.assert_allclose(damp_g, root / pi)


def test_without_gradients_all_damping_is_on_the_activations():
    a = both(np.random.default_rng(0).standard_normal((2, 9, 4)))[0]
    damp_a, damp_g = damping_pair(a, None, 1e-2)
    np.testing.assert_allclose(damp_a, 1e-2 * np.einsum("gii->g", a.mean()) / 4)
    assert (damp_g == 0).all()


def test_a_factor_that_is_zero_throughout_stays_invertible():
    zero = Gram(np.zeros((1, 3, 3)), 5.0)
    damp_a, damp_g = damping_pair(zero, zero, 1e-4)
    assert damp_a > 0 and damp_g > 0
    diagonal = zero.damped(damp_a).inverse_diagonal()
    product = diagonal[:, None] * zero.damped(damp_g).inverse_diagonal()[..., None]
    assert np.isfinite(product).all() and (1 / product > 0).all()


def test_gradients_of_a_saturated_softmax_whose_squares_underflow_stay_invertible():
    """A product of float32 numbers that small has no relative precision left: its gram is indefinite."""
    g = (1e-22 * np.random.default_rng(0).standard_normal((1, 50, 1))).astype(np.float32).repeat(6, 2)
    g *= np.float32([1, 0.3, 0.7, 1.1, 0.9, 0.2])
    gram = Gram((g.transpose(0, 2, 1) @ g).astype(np.float64), 50.0)
    assert np.linalg.eigvalsh(gram.mean()[0]).min() < 0
    _, damping = damping_pair(Gram(np.eye(6)[None], 1.0), gram, 1e-4)
    assert (gram.damped(damping).inverse_diagonal() > 0).all()


def test_a_damped_factor_that_is_not_positive_definite_is_said_to_be():
    with pytest.raises(StatisticsError, match="not positive definite; raise --damping"):
        Gram(-np.eye(3)[None], 1.0).damped(np.array([0.5]))


@pytest.mark.parametrize("columns", [3, 8, 20])  # fewer than the samples, as many, more
def test_some_columns_are_solved_by_themselves(columns):
    rng = np.random.default_rng(0)
    rows, right = rng.standard_normal((2, 8, 24)), rng.standard_normal((5, columns))
    chosen = np.sort(rng.choice(24, columns, replace=False))
    gram, samples = both(rows, 6.0)
    want = right @ np.linalg.inv(gram.mean()[1][np.ix_(chosen, chosen)] + 0.1 * np.eye(columns))
    found = gram.within(1, chosen, 0.1, right)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())  # condition 1e3
    assert gram.flops_within(columns, 5) > 0 and samples.flops_within(columns, 5) > 0


def test_a_thousand_kept_columns_of_a_few_samples_cost_little():
    """AlexNet's fc1 took its last fit by two hundred products with everything instead."""
    samples, gram = Samples(np.zeros((1, 64, 9217)), 64.0), Gram(np.zeros((1, 1, 1)), 64.0)
    assert samples.flops_within(1000, 1) < 0.03 * gram.flops_within(1000, 1)
