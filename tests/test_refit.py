"""Refit: exact least squares against brute force, exact counts, valid patterns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import dual
from onnxprune import refit as module
from onnxprune.dual import least_squares
from onnxprune.errors import StatisticsError
from onnxprune.ranking import best_of_all
from onnxprune.refit import Problem, Refit, choose, some_outputs
from onnxprune.rounds import geometric, largest, n_of_m, patterned, thinned
from onnxprune.statistics import Gram
from onnxprune.sweep.sums import Moments, RowMoments


def layer(seed=0, groups=2, d_out=4, d_in=6, rows=50, form=Moments):
    """Inputs x [groups, rows, d_in], targets t [groups, rows, d_out], and their moments."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, rows, d_in)) @ rng.standard_normal((groups, d_in, d_in)) + 1
    t = x @ rng.standard_normal((groups, d_in, d_out)) + rng.standard_normal((groups, rows, d_out)) + 2
    return x, t, moments_of(x, t) if form is Moments else RowMoments(x, t)


def moments_of(x, t):
    """Sums over the rows of x and t, as `layer` has them."""
    gram, cross = x.transpose(0, 2, 1) @ x, t.transpose(0, 2, 1) @ x
    rows = x.shape[1]
    sums = (array.astype(np.float64) for array in (cross, x.sum(1), t.sum(1), (t**2).sum(1)))
    return Moments(Gram(gram.astype(np.float64), rows), *sums, rows)


def brute_force(x, t, kept, reference, ridge, has_bias):
    """Row by row numpy.linalg.lstsq on the rows themselves: a free column of ones, √(nλ) rows of ridge."""
    _, n, d_in = x.shape
    weights, biases = np.zeros(kept.shape), np.zeros(kept.shape[:2])
    for g, r in np.ndindex(kept.shape[:2]):
        columns = np.flatnonzero(kept[g, r])
        centre = x[g].mean(0) if has_bias else np.zeros(d_in)
        root = np.sqrt(n * ridge * ((x[g] - centre) ** 2).mean())  # λ is relative to the mean diagonal
        design = np.zeros((n + len(columns), len(columns) + has_bias))
        design[:n, : len(columns)] = x[g][:, columns]
        design[:n, len(columns) :] = 1
        design[n:, : len(columns)] = root * np.eye(len(columns))
        wanted = np.concatenate([t[g, :, r], root * reference[g, r, columns]])
        solution = np.linalg.lstsq(design, wanted)[0]
        weights[g, r, columns] = solution[: len(columns)]
        biases[g, r] = solution[-1] if has_bias else 0
    return weights, biases


@pytest.mark.parametrize("form", [Moments, RowMoments])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rows", [50, 5])  # 5: fewer than columns, the ridge decides
def test_exact_is_row_wise_least_squares(form, has_bias, rows):
    x, t, moments = layer(rows=rows, form=form)
    rng = np.random.default_rng(1)
    kept, reference = rng.random((2, 4, 6)) < 0.6, rng.standard_normal((2, 4, 6))
    kept[0, 0] = False
    refit = least_squares(moments.problem(has_bias), reference, 1e-3)
    weights = refit.exact(np.where(kept, reference, 0), kept)
    want, bias = brute_force(x, t, kept, reference, 1e-3, has_bias)
    # Cholesky of matrices with condition 1e5 at most; conjugate gradients stop at a residual of 1e-8
    np.testing.assert_allclose(weights, want, atol=1e-8 if form is Moments else 1e-5)
    np.testing.assert_allclose(refit.problem.bias(weights), bias, atol=1e-8 if form is Moments else 1e-5)
    assert (weights[~kept] == 0).all()


@pytest.mark.parametrize("form", [Moments, RowMoments])
@pytest.mark.parametrize("rows", [50, 5])
def test_where_cholesky_is_too_dear_conjugate_gradients_find_the_same(monkeypatch, form, rows):
    _, _, moments = layer(form=form, rows=rows)
    kept, reference = np.random.default_rng(1).random((2, 4, 6)) < 0.6, np.zeros((2, 4, 6))
    refit = least_squares(moments.problem(True), reference, 1e-3)
    by_rows = refit.exact(reference, kept)
    monkeypatch.setattr(module, "_EXACT_FLOPS", 0.0)
    monkeypatch.setattr(module, "_EXACT_SHARE", 0.0)
    monkeypatch.setattr(dual, "_EXACT_SHARE", 0.0)
    np.testing.assert_allclose(
        refit.exact(reference, kept), by_rows, atol=1e-5
    )  # a residual of 1e-8, condition 1e3


@pytest.mark.parametrize("has_bias", [True, False])
def test_error_is_the_mean_squared_residual(has_bias):
    x, t, moments = layer()
    weights = np.random.default_rng(2).standard_normal((2, 4, 6))
    problem = moments.problem(has_bias)
    residual = t - x @ weights.transpose(0, 2, 1) - problem.bias(weights)[:, None, :]
    np.testing.assert_allclose(problem.error(weights), (residual**2).mean(1), rtol=1e-9)
    if not has_bias:
        assert (problem.bias(weights) == 0).all()


def test_moments_add_up():
    for form in (Moments, RowMoments):
        _, _, one = layer(0, form=form)
        _, _, two = layer(1, rows=20, form=form)
        both = one.joined(two).problem(True)
        x = np.concatenate([layer(0)[0], layer(1, rows=20)[0]], axis=1)
        t = np.concatenate([layer(0)[1], layer(1, rows=20)[1]], axis=1)
        centred = x - x.mean(1, keepdims=True)
        np.testing.assert_allclose(both.gram.mean(), centred.transpose(0, 2, 1) @ centred / 70, atol=1e-10)
        np.testing.assert_allclose(both.mean_t, t.mean(1), atol=1e-12)
        np.testing.assert_allclose(both.variance, t.var(1), rtol=1e-9)


def test_improving_goes_down_to_the_exact_fit():
    _, _, moments = layer()
    reference = np.zeros((2, 4, 6))
    kept = np.random.default_rng(1).random(reference.shape) < 0.6
    refit = least_squares(moments.problem(True), reference)
    errors = [refit.problem.error(refit.improve(reference, kept, steps)).sum() for steps in (0, 1, 3, 30)]
    assert errors == sorted(errors, reverse=True)
    best = refit.problem.error(refit.exact(reference, kept)).sum()
    assert errors[-1] == pytest.approx(best, rel=1e-4)  # float32


@pytest.mark.parametrize("dead", [[], [0, 3, 4], range(6)], ids=str)
def test_columns_that_no_unit_keeps_are_left_out_of_the_steps_and_change_nothing(dead, monkeypatch):
    _, _, moments = layer()
    rng = np.random.default_rng(1)
    kept, reference = rng.random((2, 4, 6)) < 0.7, rng.standard_normal((2, 4, 6))
    kept[..., list(dead)] = False
    refit = least_squares(moments.problem(True), reference, 1e-3)
    found = refit.improve(reference, kept, 3)
    monkeypatch.setattr(module, "_FEWER", 0.0)
    want = refit.improve(reference, kept, 3)
    assert not found[~kept].any()
    # three steps in float32 on other sums: each rounds to a few 1e-7
    np.testing.assert_allclose(found, want, atol=1e-5 * max(1.0, np.abs(want).max()))


def test_saliency_is_what_the_error_grows_by_when_one_weight_leaves():
    _, _, moments = layer()
    reference = np.zeros((2, 4, 6))
    whole = np.ones(reference.shape, bool)
    refit = least_squares(moments.problem(True), reference, 1e-9)
    weights = refit.exact(reference, whole)
    before = refit.problem.error(weights)
    scores = refit.saliency(weights)
    for g, r, j in np.ndindex(weights.shape):
        kept = whole.copy()
        kept[g, r, j] = False
        after = refit.problem.error(refit.exact(reference, kept))
        # a theorem for λ → 0; λ is no less than float32 rounding, 3e-7 of the inputs' mean square
        assert after[g, r] - before[g, r] == pytest.approx(scores[g, r, j], rel=1e-3, abs=1e-6)


# -- which stay
# -------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.floats(0, 1), st.booleans())
def test_largest_keeps_an_exact_count_of_the_best_allowed(seed, count, density, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (2, 3, 4)).astype(float) if ties else rng.random((2, 3, 4))
    allowed = rng.random(scores.shape) < density
    mask = largest(scores, allowed, count)
    assert mask.sum() == min(count, allowed.sum()) and not (mask & ~allowed).any()
    if mask.any() and (allowed & ~mask).any():
        assert scores[mask].min() >= scores[allowed & ~mask].max()


@pytest.mark.parametrize("count", [0, 1, 7, 12, 13])
def test_largest_takes_what_a_stable_sort_would(count):
    scores = np.array([2.0, -np.inf, 1, 3, 1, np.inf, 1, 2, -np.inf, 1, np.inf, 0])
    sorted_first = np.zeros(12, dtype=bool)
    sorted_first[np.argsort(-scores, kind="stable")[:count]] = True
    np.testing.assert_array_equal(largest(scores, np.ones(12, bool), count), sorted_first)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.booleans(), st.floats(0.1, 1))
def test_the_best_of_all_layers_are_those_of_one_sorted_list(seed, count, ties, share):
    rng = np.random.default_rng(seed)
    shapes = {"a": (1, 2, 3), "b": (2, 2, 5), "c": (1, 4, 7)}
    draw = (lambda shape: rng.integers(0, 4, shape).astype(float)) if ties else rng.random
    scores = {name: draw(shape) for name, shape in shapes.items()}
    allowed = {name: rng.random(shape) < share for name, shape in shapes.items()}
    floors = {"a": 2, "c": 1}
    floors = {name: min(floor, int(allowed[name].sum())) for name, floor in floors.items()}
    count = max(count, sum(floors.values()))
    found = best_of_all(scores, count, floors, allowed)
    lifted = {
        name: np.where(largest(score, allowed[name], floors.get(name, 0)), np.inf, score)
        for name, score in scores.items()
    }
    flat = np.concatenate([np.where(allowed[n], lifted[n], -np.inf).reshape(-1) for n in scores])
    want = np.zeros(len(flat), bool)
    want[np.argsort(-flat, kind="stable")[:count]] = True
    want[flat == -np.inf] = False  # what is not allowed never is
    np.testing.assert_array_equal(np.concatenate([found[n].reshape(-1) for n in scores]), want)


def test_thinned_rounds_keep_the_share_of_weights_and_the_pattern():
    scores, kept = np.random.default_rng(0).random((1, 8, 16)), np.ones((1, 8, 16), bool)
    for leave, half in zip(geometric(128, 40, 3), thinned(geometric(128, 40, 3), 0.5), strict=True):
        kept = leave(scores, kept)
        few = half(scores[:, :4], np.ones((1, 4, 16), bool))
        assert few.sum() == round(0.5 * kept.sum())
    (pattern,) = thinned(patterned(3, 4, 1, np.ones((1, 16), bool)), 0.5)
    assert (pattern(scores[:, :4], np.ones((1, 4, 16), bool)).reshape(4, 4, 4).sum(2) == 3).all()


def test_thinned_rounds_of_all_units_are_the_same_down_to_none():
    (only,) = thinned(geometric(128, 0, 1), 1.0)  # a layer that may keep nothing was left one weight
    assert not only(np.ones((1, 8, 16)), np.ones((1, 8, 16), bool)).any()


def test_moments_of_some_outputs_are_those_of_their_rows():
    _, _, moments = layer()
    some = some_outputs(4, 2)
    assert len(set(some)) == 2 and list(some_outputs(4, 4)) == [0, 1, 2, 3]
    kept, reference = np.random.default_rng(1).random((2, 4, 6)) < 0.6, np.ones((2, 4, 6))
    whole = least_squares(moments.problem(True), reference).exact(reference, kept)
    part = Refit(moments.of(some).problem(True), reference[:, some]).exact(reference[:, some], kept[:, some])
    np.testing.assert_allclose(part, whole[:, some], atol=1e-12)  # the same factorisations


def test_ties_go_by_position():
    mask = largest(np.ones((1, 2, 3)), np.array([[[False, True, True], [True, True, True]]]), 3)
    np.testing.assert_array_equal(mask, [[[False, True, True], [True, False, False]]])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.floats(0, 1), st.integers(1, 12))
def test_geometric_rounds_fall_to_the_exact_count(start, share, number):
    count = int(share * start)
    rounds = geometric(start, count, number)
    assert len(rounds) == number
    kept = np.ones((1, 1, start), bool)
    scores = np.random.default_rng(0).random(kept.shape)
    sizes = [start]
    for leave in rounds:
        kept = leave(scores, kept)
        sizes.append(int(kept.sum()))
    assert sizes[-1] == count and sizes == sorted(sizes, reverse=True)


def test_geometric_rounds_keep_the_same_share_each():
    sizes = [leave.keywords["count"] for leave in geometric(10_000, 625, 4)]
    assert sizes == [5000, 2500, 1250, 625]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([1, 4, 9]), st.integers(2, 4), st.data())
def test_patterns_keep_n_of_every_m_channels_at_each_kernel_position(seed, channels, kernel, of, data):
    kept = data.draw(st.integers(1, of - 1))
    scores = np.random.default_rng(seed).integers(0, 4, (2, 3, channels * kernel)).astype(float)  # with ties
    mask = n_of_m(scores, np.ones(scores.shape, bool), kept, of, kernel, np.ones((2, channels), bool))
    shaped, values = (array.reshape(2, 3, channels, kernel) for array in (mask, scores))
    whole = channels // of * of
    assert shaped[:, :, whole:].all()
    for first in range(0, whole, of):
        block, score = shaped[:, :, first : first + of], values[:, :, first : first + of]
        assert (block.sum(axis=2) == kept).all()
        least = np.where(block, score, np.inf).min(axis=2)
        most = np.where(block, -np.inf, score).max(axis=2)
        assert (least >= most).all()


def test_a_pattern_takes_nothing_back():
    rng = np.random.default_rng(0)
    scores, allowed = rng.random((1, 2, 8)), rng.random((1, 2, 8)) < 0.4
    mask = n_of_m(scores, allowed, 2, 4, 1, np.ones((1, 8), bool))
    assert not (mask & ~allowed).any()
    wanted = np.minimum(allowed.reshape(1, 2, 2, 4).sum(3), 2)
    np.testing.assert_array_equal(mask.reshape(1, 2, 2, 4).sum(3), wanted)


def test_channels_that_go_are_in_no_group_of_a_pattern():
    rng = np.random.default_rng(0)
    scores, staying = rng.random((2, 3, 24)), np.ones((2, 12), bool)
    staying[0, [1, 5]] = staying[1, [0, 11]] = False
    allowed = np.repeat(staying[:, None], 2, axis=2).reshape(2, 1, 24) & np.ones(scores.shape, bool)
    mask = n_of_m(scores, allowed, 2, 4, 2, staying).reshape(2, 3, 12, 2)
    for group in range(2):
        left = mask[group][:, staying[group]]
        assert (left[:, :8].reshape(3, 2, 4, 2).sum(2) == 2).all() and left[:, 8:].all()
        assert not mask[group][:, ~staying[group]].any()


def test_patterned_rounds_end_with_the_pattern():
    kept = np.ones((1, 3, 24), bool)
    scores = np.random.default_rng(0).random(kept.shape)
    sizes = []
    for leave in patterned(2, 4, 3, np.ones((1, 8), bool)):
        kept = leave(scores, kept)
        sizes.append(int(kept.sum()))
    assert sizes == [54, 36]
    assert (kept.reshape(1, 3, 2, 4, 3).sum(axis=3) == 2).all()


@pytest.mark.parametrize("form", [Moments, RowMoments])
def test_choosing_keeps_the_exact_count_and_only_what_was_kept(form):
    _, _, moments = layer(form=form)
    weights = np.random.default_rng(3).standard_normal((2, 4, 6))
    before = np.random.default_rng(4).random(weights.shape) < 0.8
    kept, fitted = choose(
        least_squares(moments.problem(True), weights), weights, before, geometric(int(before.sum()), 11, 5)
    )
    assert kept.sum() == 11 and not (kept & ~before).any() and (fitted[~kept] == 0).all()


def test_choosing_in_rounds_beats_choosing_at_once():
    """Inputs that repeat each other: alone each is worth nothing, so at once too many of one kind leave."""
    errors = {1: 0.0, 8: 0.0}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        hidden = rng.standard_normal((1, 400, 6))
        x = np.concatenate([hidden, hidden + 0.1 * rng.standard_normal(hidden.shape)], axis=2)
        weights = rng.standard_normal((1, 8, 12))
        t = x @ weights.transpose(0, 2, 1)
        moments = moments_of(x, t)
        for rounds in errors:
            refit = least_squares(moments.problem(True), weights)
            kept, fitted = choose(refit, weights, np.ones(weights.shape, bool), geometric(96, 40, rounds))
            errors[rounds] += refit.problem.error(refit.exact(fitted, kept)).sum()
    assert errors[8] < 0.9 * errors[1]


@pytest.mark.parametrize("form", [Moments, RowMoments])
def test_inputs_that_hardly_vary_can_be_fitted(form):
    """Units whose own weights are cut are constants; centring float32 sums leaves rounding of either sign."""
    rng = np.random.default_rng(0)
    x = (3 + 1e-5 * rng.standard_normal((1, 400, 8))).astype(np.float32)
    t = rng.standard_normal((1, 400, 2)).astype(np.float32)
    moments = moments_of(x, t) if form is Moments else RowMoments(x, t.astype(np.float64))
    refit = least_squares(moments.problem(True), np.ones((1, 2, 8)))
    if form is Moments:
        assert np.linalg.eigvalsh(refit.problem.gram.mean()[0]).min() < -1e-7
    kept, weights = choose(refit, np.ones((1, 2, 8)), np.ones((1, 2, 8), bool), geometric(16, 9, 2))
    weights = refit.exact(weights, kept)
    assert kept.sum() == 9 and np.isfinite(weights).all()
    assert refit.problem.error(weights).sum() <= 2 * refit.problem.variance.sum()


def indefinite(least):
    """A gram with eigenvalues from `least` to 11, such as many float32 rows around a large mean leave."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((27, 27)))[0]
    values = np.array([least, *np.geomspace(4e-5, 11, 26)])
    gram = Gram((basis * values @ basis.T)[None], 1.0)
    weights = np.random.default_rng(1).standard_normal((1, 16, 27))
    cross = gram.times(weights)
    variance = np.einsum("goi,goi->go", weights, cross)  # T = W X
    return Problem(gram, cross, np.zeros((1, 27)), np.zeros((1, 16)), variance), weights


def test_a_gram_that_rounding_left_indefinite_is_fitted_with_a_higher_ridge():
    # like the first layer of PP-OCR's detector on 35 pages, 800,000 patches: −1e-4, twice the smallest ridge
    problem, weights = indefinite(-2e-4)
    with pytest.raises(StatisticsError):
        problem.gram.damped(module.RIDGE * problem.gram.diagonal().mean(axis=1))
    refit = Refit(problem, weights)
    saliency = refit.saliency(weights)
    assert np.isfinite(saliency).all() and (saliency > 0).all()
    kept, fitted = choose(refit, weights, np.ones(weights.shape, bool), geometric(432, 300, 3))
    # cutting a third of the weights loses less after a refit than without
    assert problem.error(refit.exact(fitted, kept)).sum() < problem.error(weights * kept).sum()


def test_a_gram_indefinite_by_more_than_rounding_is_refused():
    with pytest.raises(StatisticsError, match="not positive definite"):
        Refit(*indefinite(-5.0))


def test_rows_and_their_moments_choose_and_fit_alike():
    """Fewer rows than columns, where both may be used: rows choose no worse, and the same masks fit alike."""
    errors = np.zeros(2)
    for seed in range(5):
        x, t, rows = layer(seed, rows=12, d_in=40, d_out=6, form=RowMoments)
        reference = np.random.default_rng(5).standard_normal((2, 6, 40))
        whole = np.ones(reference.shape, bool)
        fits = [least_squares(moments.problem(True), reference, 1e-2) for moments in (rows, moments_of(x, t))]
        one, other = (fit.saliency(reference) for fit in fits)
        np.testing.assert_allclose(one, other, rtol=1e-6)  # one inverse by Woodbury, one by Cholesky
        for place, fit in enumerate(fits):
            kept, _ = choose(fit, reference, whole, geometric(whole.size, 60, 8))
            one, other = (each.exact(reference, kept) for each in fits)
            np.testing.assert_allclose(one, other, atol=1e-6)  # condition 1e4
            errors[place] += fits[1].problem.error(one).sum()
    assert errors[0] < 1.1 * errors[1]  # they stop at different places on the way, so that choices differ


def test_columns_fewer_than_rows_do_not_send_the_multipliers_off():
    """One kept column of twelve rows: X_K X_Kᵀ is singular, and steps in the multipliers went astray."""
    _, _, moments = layer(rows=12, d_in=40, form=RowMoments)
    reference = np.random.default_rng(5).standard_normal((2, 4, 40)).astype(np.float32)
    kept = np.zeros(reference.shape, bool)
    kept[:, :, 7] = True
    refit = least_squares(moments.problem(True), reference, 1e-6)
    best = refit.exact(reference, kept)
    np.testing.assert_allclose(refit.improve(reference, kept, 3), best, rtol=1e-4)  # one unknown a unit


def test_weights_of_rows_are_as_wide_as_the_reference():
    _, _, moments = layer(rows=5, form=RowMoments)
    for dtype in (np.float32, np.float64):
        reference = np.ones((2, 4, 6), dtype)
        refit = least_squares(moments.problem(True), reference)
        kept, weights = choose(refit, reference, reference > 0, geometric(48, 20, 3))
        assert weights.dtype == refit.exact(weights, kept).dtype == refit.saliency(weights).dtype == dtype
