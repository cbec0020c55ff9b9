"""Runs of axes with equal products, against numpy: a run holds the same indices before and after."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.units.reshape import runs


def joined(factors, data):
    """Dimensions of the product of `factors`: neighbours multiplied together, and a 1 here and there."""
    dims = [1]
    for factor in factors:
        if data.draw(st.booleans()):
            dims.append(factor)
        else:
            dims[-1] *= factor
    return dims


CASES = [
    ((2, 3, 4), (2, 12), [((0,), (0,)), ((1, 2), (1,))]),
    ((2, 12), (2, 3, 4), [((0,), (0,)), ((1,), (1, 2))]),
    ((1, 6, 1), (6,), [((1,), (0,))]),
    (("n", 8, 6), ("n", 8, 2, 3), [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))]),
    ((None, 8), (None, 2, 4), [((0,), (0,)), ((1,), (1, 2))]),
    (("n", "t", 8), (None, 2, 4), [((2,), (1, 2))]),
    (("n", 6), (None, 3), []),
    (("a", 4, "b"), ("b", 4, "a"), []),
    ((4, 6), (6, 4), [((0, 1), (0, 1))]),
]


@pytest.mark.parametrize(("before", "after", "expected"), CASES)
def test_pairs(before, after, expected):
    assert runs(before, after) == expected


PRIMES = st.lists(st.sampled_from([2, 2, 3]), max_size=5)


@given(PRIMES.flatmap(lambda factors: st.tuples(*[st.permutations(factors)] * 2)), st.data())
def test_indices_along_a_run_are_the_same_before_and_after(factors, data):
    before, after = (joined(side, data) for side in factors)
    found = runs(before, after)
    for old_axes, new_axes in found:
        numbers = [
            np.ravel_multi_index(
                [np.indices(dims)[axis] for axis in axes], [dims[axis] for axis in axes]
            ).ravel()
            for dims, axes in ((before, old_axes), (after, new_axes))
        ]
        np.testing.assert_array_equal(*numbers)
    assert {a for run in found for a in run[0]} == {a for a, dim in enumerate(before) if dim > 1}
