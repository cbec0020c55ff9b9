"""Liveness: bytes of a graph's values at its worst node, by hand; resident memory, as the system tells it."""

import sys

import numpy as np
import pytest
from units.nets import parsed

from onnxprune.liveness import measure
from onnxprune.memory import be_thrifty, peak, release, resident

#: x [n, 5] → a [n, 8] → r, kept beside a until s; then t alone. `view` is s under another name.
CHAIN = """net (float[n,5] x) => (float[n,2] y) {
    a = MatMul(x, w)
    r = Relu(a)
    s = Add(a, r)
    view = Identity(s)
    t = MatMul(view, v)
    y = MatMul(t, u)
}"""
WEIGHTS = {"w": (5, 8), "v": (8, 3), "u": (3, 2)}


def rows(count):
    return {"x": np.ones((count, 5), np.float32)}


def test_the_worst_node_is_where_most_values_are_alive():
    alive = measure(parsed(CHAIN, WEIGHTS), [rows(1), rows(2)])
    for samples in (1, 2, 7):
        assert alive.at(samples) == 4 * samples * 3 * 8  # a, r and s; neither inputs nor outputs count


def test_values_that_do_not_grow_with_the_samples_count_once():
    text = """net (float[n,5] x) => (float[n,8] y) {
        big = MatMul(p, q)
        a = MatMul(x, w)
        y = Add(a, big)
    }"""
    alive = measure(parsed(text, {"p": (1, 3), "q": (3, 8), "w": (5, 8)}), [rows(1), rows(2)])
    assert (alive.at(1), alive.at(10)) == (4 * (8 + 8), 4 * (8 + 80))


def test_of_one_run_everything_counts_for_a_sample():
    alive = measure(parsed(CHAIN, WEIGHTS), [rows(4)])
    assert alive.at(1) == 4 * 4 * 3 * 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what is resident")
def test_what_is_given_back_is_not_resident():
    be_thrifty()
    release()
    before, size = resident(), 64 << 20
    block = np.ones(size // 8)
    assert resident() >= before + 0.9 * size and peak() >= resident() - 2**20  # counted by the page, in parts
    del block
    release()
    assert resident() < before + 0.1 * size


def test_sequences_and_texts_do_not_stop_the_count():
    text = """net (float[n,5] x) => (float[n,8] y) {
        parts = SequenceConstruct(x, x)
        zero = Constant<value = int64 {0}>()
        one = SequenceAt(parts, zero)
        words = Cast<to = 8>(x)
        back = Cast<to = 1>(words)
        sum = Add(one, back)
        y = MatMul(sum, w)
    }"""
    alive = measure(parsed(text, {"w": (5, 8)}), [rows(1), rows(2)])
    assert alive.at(2) - alive.at(1) == 64 * 5 + 2 * 4 * 5  # words, back and one
