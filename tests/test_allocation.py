"""Allocation: exact sums within bounds, curves that fall, and fractions that are optimal for them."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxprune import allocation, dual
from onnxprune.allocation import (
    DENSITIES,
    _traced,
    balanced,
    dense_problem,
    least_loss,
    loss_curve,
    rounded,
    smallest,
)
from onnxprune.statistics import Gram, LayerStatistics, Samples


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_rounded_is_exact_and_within_bounds(layers, seed, share, sparse):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 10 ** rng.integers(1, 6), layers)
    most = np.minimum(sizes, rng.integers(0, sizes + 1))
    least = np.minimum(most, rng.integers(0, most + 1) * rng.integers(0, 2, layers))
    fractions = rng.random(layers) * (rng.random(layers) < 0.6 if sparse else 1)
    budget = int(least.sum() + share * (most.sum() - least.sum()))
    counts = rounded(fractions, sizes, budget, least, most)
    assert counts.dtype == np.int64 and counts.sum() == budget
    assert (least <= counts).all() and (counts <= most).all()


def test_rounded_is_in_proportion():
    counts = rounded(
        np.array([0.1, 0.2, 0.4]), np.array([1000, 500, 250]), 300, np.zeros(3), np.full(3, 1000)
    )
    np.testing.assert_array_equal(counts, [100, 100, 100])
    more = rounded(np.array([0.1, 0.2, 0.4]), np.array([1000, 500, 250]), 600, np.zeros(3), np.full(3, 1000))
    np.testing.assert_array_equal(more, [200, 200, 200])


def test_rounded_gives_what_a_bound_takes_to_the_others():
    counts = rounded(
        np.array([0.5, 0.5, 0.5]), np.full(3, 100), 150, np.array([0, 90, 0]), np.array([10, 100, 100])
    )
    np.testing.assert_array_equal(counts, [10, 90, 50])


def test_rounded_goes_to_the_largest_remainders():
    counts = rounded(np.array([0.26, 0.49, 0.25]), np.full(3, 10), 10, np.zeros(3), np.full(3, 10))
    np.testing.assert_array_equal(counts, [3, 5, 2])


@pytest.fixture(autouse=True)
def _rows_pay(monkeypatch):
    """Rows are worked on as they are, so that both forms are tested on the same layer."""
    monkeypatch.setattr(allocation, "pays", lambda rows, columns: True)


# -- curves
# -----------------------------------------------------------------------------------------------------


def layer(seed=0, rank=12, gradients=True, samples=False, scale=1.0):
    """A layer whose inputs have `rank` strong directions of 12: the fewer, the cheaper it is to prune."""
    rng = np.random.default_rng(seed)
    spread = np.where(np.arange(12) < rank, 1.0, 0.05)
    a = (rng.standard_normal((1, 300, 12)) * spread) @ np.linalg.qr(rng.standard_normal((12, 12)))[0] + 0.5
    a = np.concatenate([a, np.ones((1, 300, 1))], axis=2)
    g = scale * rng.standard_normal((1, 300, 5))
    factor = Samples(a, 300.0) if samples else Gram(a.transpose(0, 2, 1) @ a, 300.0)
    statistics = LayerStatistics(
        factor, Gram(g.transpose(0, 2, 1) @ g, 300.0) if gradients else None, 300.0, 100.0
    )
    return rng.standard_normal((1, 5, 12)), statistics


@pytest.mark.parametrize("samples", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_dense_problem_is_fitted_by_the_weights_themselves(samples, has_bias):
    weights, statistics = layer(samples=samples)
    problem = dense_problem(weights, statistics, has_bias)
    full = statistics.activations.mean()[:, :-1, :-1]
    mean = statistics.mean()
    want = full - mean[:, :, None] * mean[:, None, :] * has_bias
    np.testing.assert_allclose(problem.gram.mean(), want, atol=1e-12)  # double
    np.testing.assert_allclose(problem.error(weights), 0, atol=1e-10)
    np.testing.assert_allclose(problem.bias(weights), 0, atol=1e-12)  # what the bias must change by
    np.testing.assert_allclose(problem.error(np.zeros_like(weights)), problem.variance)


def test_dense_problem_of_kept_samples_forms_a_gram_only_where_it_is_cheaper(monkeypatch):
    """25,088 columns from 100 rows would be a gram of 5 GB."""
    weights, statistics = layer(samples=True)
    assert isinstance(dense_problem(weights, statistics, True).gram, Samples)
    monkeypatch.setattr(allocation, "pays", dual.pays)
    assert isinstance(dense_problem(weights, statistics, True).gram, Gram)  # 300 rows of 12 columns
    few = LayerStatistics(Samples(statistics.activations.rows[:, :5], 5.0), None, 5.0, 5.0)
    assert isinstance(dense_problem(weights, few, True).gram, Samples)


@pytest.mark.parametrize("samples", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_curves_fall_to_about_nothing(gradients, samples):
    weights, statistics = layer(gradients=gradients, samples=samples)
    curve = loss_curve(weights, statistics, True)
    assert curve.shape == (len(DENSITIES),) and (curve >= 0).all()
    assert (
        np.diff(curve) <= 0.02 * curve[0]
    ).all()  # refits in between are a few steps of float32: not exactly monotone
    assert curve[-1] < 0.2 * curve[0]
    # with one weight left of sixty, about all of ½ T tr(G W Σ Wᵀ) is lost
    problem = dense_problem(weights, statistics, True)
    g = statistics.gradients.mean()[0] if gradients else np.eye(5)
    everything = 0.5 * 3 * np.trace(g @ weights[0] @ problem.gram.mean()[0] @ weights[0].T)
    assert 0.5 * everything < curve[0] <= everything * (1 + 1e-6)


@pytest.mark.parametrize("gradients", [True, False])
def test_a_curve_from_some_of_the_outputs_is_right_on_average(gradients):
    """Over all draws of 3 of 5 units the mean of the estimates is the whole."""
    rng = np.random.default_rng(1)
    delta, g = rng.standard_normal((1, 5, 12)), rng.standard_normal((1, 40, 5)) + 1.0
    products, gram = delta @ delta.transpose(0, 2, 1), Gram(g.transpose(0, 2, 1) @ g, 40.0)
    known = gram if gradients else None
    drawn = [np.array(chosen) for chosen in itertools.combinations(range(5), 3)]
    found = [_traced(known, products[:, rows[:, None], rows], rows, 5) for rows in drawn]
    wanted = np.trace((gram.mean()[0] if gradients else np.eye(5)) @ products[0])
    assert min(found) > 0  # none was raised to zero
    assert np.mean(found) == pytest.approx(wanted, rel=1e-12)  # sums of a few float64


def test_a_louder_gradient_costs_by_its_square():
    curves = [loss_curve(*layer(scale=scale), True) for scale in (1.0, 3.0)]
    np.testing.assert_allclose(curves[1], 9 * curves[0], rtol=1e-5)  # refits are of float32


# -- least loss
# -------------------------------------------------------------------------------------------------


def summed(curves, fractions):
    """The curves at these fractions, power laws between the densities."""
    at = [
        np.exp(np.interp(np.log(f), np.log(DENSITIES), np.log(c)))
        for c, f in zip(curves, fractions, strict=True)
    ]
    return sum(at)


def power_laws(seed, layers):
    rng = np.random.default_rng(seed)
    exponents, scales = rng.uniform(0.5, 2.5, layers), 10 ** rng.uniform(-2, 2, layers)
    return [
        scale * np.array(DENSITIES) ** -exponent for scale, exponent in zip(scales, exponents, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1), st.floats(0.03, 0.3))
def test_least_loss_is_within_budget_and_no_worse_than_uniform(layers, seed, share):
    curves = power_laws(seed, layers)
    sizes = np.random.default_rng(seed).integers(100, 10_000, layers).astype(float)
    budget = int(share * sizes.sum())
    fractions = least_loss(curves, sizes, budget)
    assert (fractions > 0).all() and (fractions <= 1).all()
    assert (fractions * sizes).sum() <= budget
    # beyond the last density the model falls steeply to nothing, so that a layer goes to 1 in one jump; where
    # that is too far the budget is not used up, and `rounded` spends the rest in proportion
    spent = fractions * budget / (fractions * sizes).sum()
    assume((spent >= DENSITIES[0]).all() and (spent <= DENSITIES[-1]).all())
    # the grid has 400 densities, a step is under 2 %
    assert summed(curves, spent) <= summed(curves, np.full(layers, share)) * 1.02


def test_least_loss_has_equal_marginal_loss_a_weight():
    """C · f^−p with equal p: by Lagrange f ∝ (c / size)^(1 / (p + 1))."""
    sizes, scales = np.array([1000.0, 1000.0, 4000.0]), np.array([1.0, 8.0, 1.0])
    curves = [scale * np.array(DENSITIES) ** -1.0 for scale in scales]
    fractions = least_loss(curves, sizes, 600)
    want = np.sqrt(scales / sizes)
    np.testing.assert_allclose(fractions / fractions[0], want / want[0], rtol=0.03)  # two steps of the grid


def test_balanced_lies_between_least_loss_and_uniform_three_to_one():
    curves, sizes = power_laws(1, 3), {"a": 500, "b": 1000, "c": 2000}
    named = dict(zip(sizes, curves, strict=True))
    best = least_loss(curves, np.array([500.0, 1000.0, 2000.0]), 350)
    got = balanced(named, sizes, 350)
    np.testing.assert_allclose([got[name] for name in sizes], best**0.75 * 0.1**0.25)


def test_the_smallest_layers_stay_whole_and_take_no_more_than_their_share():
    sizes = {"stem": 20, "big": 5000, "head": 30, "other": 4000}
    assert smallest(sizes, 2500) == {"stem", "head"}  # 50 weights: 2 % of 2,500
    assert smallest(sizes, 2499) == {"stem"}
    assert smallest(sizes, 900) == set()
    curves = {name: np.array([1.0, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01]) for name in sizes}
    wish = balanced(curves, sizes, 2500)
    counts = rounded(
        np.array([wish[name] for name in sizes]),
        np.array(list(sizes.values())),
        2500,
        np.zeros(4),
        np.array(list(sizes.values())),
    )
    assert counts.sum() == 2500
    assert counts[0] == 20 and counts[2] == 30
