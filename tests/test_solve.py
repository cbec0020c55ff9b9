"""Conjugate gradients against dense solves, row by row."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.solve import conjugate_gradients


def problem(seed, rows=3, size=6, groups=2):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((groups, size, size + 2))
    matrices = factor @ factor.transpose(0, 2, 1) + 0.1 * np.eye(size)
    right = rng.standard_normal((groups, rows, size))
    free = rng.random((groups, rows, size)) < 0.6
    return matrices, right, free


def dense(matrices, right, free):
    solution = np.zeros_like(right)
    for g, r in np.ndindex(right.shape[:2]):
        kept = np.flatnonzero(free[g, r])
        solution[g, r, kept] = np.linalg.solve(matrices[g][np.ix_(kept, kept)], right[g, r, kept])
    return solution


def solve(matrices, right, free, start=None, tolerance=1e-13, iterations=500):
    diagonal = np.einsum("gii->gi", matrices)[:, None, :]
    start = np.zeros_like(right) if start is None else start
    return conjugate_gradients(lambda x: x @ matrices, right, start, free, diagonal, tolerance, iterations)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_equals_a_dense_solve_of_every_row(seed, warm):
    matrices, right, free = problem(seed)
    start = np.random.default_rng(seed).standard_normal(right.shape) if warm else None
    # condition numbers are below 1e4 here, the residual is 1e-13
    np.testing.assert_allclose(solve(matrices, right, free, start), dense(matrices, right, free), atol=1e-8)


def test_what_is_not_free_stays_zero_from_any_start():
    matrices, right, free = problem(0)
    for iterations in (0, 1, 50):
        solution = solve(matrices, right, free, np.ones_like(right), iterations=iterations)
        assert (solution[~free] == 0).all()


def test_nothing_free_and_nothing_asked():
    matrices, right, free = problem(0)
    assert (solve(matrices, right, np.zeros_like(free)) == 0).all()
    assert (solve(matrices, np.zeros_like(right), free) == 0).all()


def test_every_step_lowers_the_quadratic():
    matrices, right, free = problem(1, size=12)
    values = []
    for iterations in range(8):
        x = solve(matrices, right, free, iterations=iterations)
        values.append(0.5 * np.vdot(x, x @ matrices) - np.vdot(x, right))
    assert all(after < before for before, after in pairwise(values))


def test_a_solution_is_not_left_again():
    matrices, right, free = problem(2)
    exact = dense(matrices, right, free)
    np.testing.assert_allclose(solve(matrices, right, free, exact, iterations=1), exact, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_the_tolerance_ends_the_work_early(tolerance):
    matrices, right, free = problem(3, size=40)
    products = []
    diagonal = np.einsum("gii->gi", matrices)[:, None, :]
    conjugate_gradients(
        lambda x: products.append(1) or x @ matrices,
        right,
        np.zeros_like(right),
        free,
        diagonal,
        tolerance,
        500,
    )
    rough = len(products)
    conjugate_gradients(
        lambda x: products.append(1) or x @ matrices, right, np.zeros_like(right), free, diagonal, 1e-10, 500
    )
    assert rough < len(products) - rough


def test_single_precision_stays_single():
    matrices, right, free = problem(4)
    product = matrices.astype(np.float32)
    found = conjugate_gradients(
        lambda x: x @ product,
        right.astype(np.float32),
        np.zeros(right.shape, np.float32),
        free,
        np.einsum("gii->gi", product)[:, None, :],
        1e-6,
        100,
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, dense(matrices, right, free), atol=1e-2
    )  # float32 times a condition of 1e3
