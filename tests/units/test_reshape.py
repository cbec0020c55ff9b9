"""Factors that axes before and after a Reshape share, against numpy: the same index at every element."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.units.reshape import factors

# shapes before and after, and of each factor (axis, indices in front, size) on both sides
CASES = [
    ((2, 3, 4), (2, 12), [((0, 1, 2), (0, 1, 2)), ((1, 1, 3), (1, 1, 3)), ((2, 1, 4), (1, 3, 4))]),
    ((2, 12), (2, 3, 4), [((0, 1, 2), (0, 1, 2)), ((1, 1, 3), (1, 1, 3)), ((1, 3, 4), (2, 1, 4))]),
    ((2, 768), (24, 64), [((0, 1, 2), (0, 1, 2)), ((1, 1, 12), (0, 2, 12)), ((1, 12, 64), (1, 1, 64))]),
    ((1, 6, 1), (6,), [((1, 1, 6), (0, 1, 6))]),
    (("n", 8), ("n", 2, 4), [((0, 1, "n"), (0, 1, "n")), ((1, 1, 2), (1, 1, 2)), ((1, 2, 4), (2, 1, 4))]),
    ((None, 8), (None, 2, 4), [((0, 1, "n"), (0, 1, "n")), ((1, 1, 2), (1, 1, 2)), ((1, 2, 4), (2, 1, 4))]),
    (("n", "t", 8), (None, 2, 4), [((2, 1, 2), (1, 1, 2)), ((2, 2, 4), (2, 1, 4))]),
    (("t", "n", 12), ("t", None, 4), [((0, 1, "t"), (0, 1, "t")), ((2, 3, 4), (2, 1, 4))]),
    (("n", 6), (None, 4), [((1, 3, 2), (1, 2, 2))]),
    (("n", 6), (None, 5), []),
    (("a", 4, "b"), ("b", 4, "a"), []),
    ((4, 6), (6, 4), [((0, 1, 2), (0, 1, 2)), ((1, 3, 2), (1, 2, 2))]),
    ((0, 4), (0, 2, 2), []),
]


@pytest.mark.parametrize(("before", "after", "expected"), CASES)
def test_shared_factors(before, after, expected):

    named = [
        tuple((*part[:2], "n" if part[2] == "the only unknown" else part[2]) for part in pair)
        for pair in factors(before, after)
    ]
    assert named == expected


def index(dims, part):
    """Of every element, its index along one part of an axis."""
    axis, outer, size = part
    return (np.indices(dims)[axis] // (dims[axis] // outer // size) % size).ravel()


PRIMES = st.lists(st.sampled_from([2, 2, 3, 5]), max_size=5)


def joined(primes, data):
    """Dimensions of the product of `primes`: neighbours multiplied together, and a 1 here and there."""
    dims = [1]
    for prime in primes:
        if data.draw(st.booleans()):
            dims.append(prime)
        else:
            dims[-1] *= prime
    return dims


@given(PRIMES.flatmap(lambda primes: st.tuples(*[st.permutations(primes)] * 2)), st.data())
def test_every_factor_is_the_same_index_before_and_after(primes, data):
    before, after = (joined(side, data) for side in primes)
    for a, b in factors(before, after):
        assert a.size == b.size > 1
        np.testing.assert_array_equal(index(before, a), index(after, b))


@given(PRIMES, st.data())
def test_shapes_of_the_same_numbers_in_the_same_order_share_all_of_them(primes, data):
    before, after = joined(primes, data), joined(primes, data)
    found = factors(before, after)
    assert math.prod(a.size for a, _ in found) == math.prod(primes)
