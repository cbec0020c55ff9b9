"""Batches shared out among collectors, and taken in again: the statistics of one process."""

import pickle

import numpy as np
import pytest
from nets_of_few_rows import NETS
from tiny import TWINS, data_for, relative, samples, twin_model
from units.nets import parsed

from onnxprune.data import open_data
from onnxprune.statistics import Gathering, collect
from onnxprune.statistics.collect import Collector
from onnxprune.statistics.factors import Samples

# Sums of a few dozen terms in float64, in another order: each addition rounds to 1.1e-16 of what is there.
ROUNDING = 1e-14


def shared_out(model, data, how, *shares):
    """What collectors that see these batches each end up with; as pickled, for so they travel."""
    collectors = [Collector(model, data, how) for _ in shares]
    for collector, numbers in zip(collectors, shares, strict=True):
        for number in numbers:
            (batch,) = data.batches(range(number, number + 1))
            collector.add(number, batch)
    first, *others = collectors
    for other in others:
        first.take_in(pickle.loads(pickle.dumps(other.partial())))
    return first.statistics("")


def assert_same(found, want):
    assert found.samples == want.samples
    for name, known in want.layers.items():
        got = found.layers[name]
        assert (got.rows, got.samples) == (known.rows, known.samples)
        assert type(got.activations) is type(known.activations)
        if isinstance(known.activations, Samples):
            np.testing.assert_array_equal(got.activations.rows, known.activations.rows)
        assert relative(got.activations.mean(), known.activations.mean()) < ROUNDING
        if known.gradients is not None:
            assert relative(got.gradients.mean(), known.gradients.mean()) < ROUNDING


@pytest.mark.parametrize("how", [{}, {"average": "exponential"}, {"positions": 3}], ids=str)
@pytest.mark.parametrize("name", TWINS)
def test_any_shares_in_any_order_make_the_statistics_of_one_process(name, how):
    if "positions" in how and name == "mlp":
        pytest.skip("a layer of one position a sample has none to leave out")
    model = twin_model(name)
    data = data_for(model, {"x": samples(TWINS[name].shape, 46)})  # 12 batches, the last one short
    gathering = Gathering(**how)
    want = collect(model, "", data, gathering)
    for shares in [(range(5), range(5, 12)), ([11, 2, 7, 4], [0, 1, 3], [10, 9, 8, 6, 5]), ([], range(12))]:
        assert_same(shared_out(model, data, gathering, *shares), want)


@pytest.mark.parametrize("name", NETS)
def test_sums_that_wait_are_of_the_same_batches_however_these_are_shared_out(name):
    text, weights, shape = NETS[name]
    model = parsed(text, weights)
    x = np.random.default_rng(0).standard_normal((1600, *shape)).astype(np.float32)
    data = open_data({"x": x}, model.graph.inputs, batch_size=3)
    how = Gathering(loss="gaussian")
    whole = Collector(model, data, how)
    for number, batch in enumerate(data.batches()):
        whole.add(number, batch)
    assert any(whole.partial().waiting.values())  # else this net tests nothing
    count = data.batch_count
    shares = range(0, count, 2), range(count - 1, 0, -2)
    assert_same(shared_out(model, data, how, *shares), whole.statistics(""))


def test_few_rows_are_kept_in_the_order_of_the_samples():
    model = twin_model("mlp")
    data = data_for(model, {"x": samples((7,), 6)}, batch_size=2)
    want = collect(model, "", data)
    assert all(isinstance(known.activations, Samples) for known in want.layers.values())
    assert_same(shared_out(model, data, Gathering(), [2], [0], [1]), want)


def test_batches_are_read_alone_by_their_numbers():
    model = twin_model("mlp")
    data = data_for(model, [{"x": samples((7,), 5)}, {"x": samples((7,), 6, seed=1)}], batch_size=4)
    every = list(data.batches())
    assert data.batch_count == len(every) == 3
    for numbers in (range(0, 1), range(1, 3), range(3, 3)):
        some = list(data.batches(numbers))
        assert [batch.count for batch in some] == [every[number].count for number in numbers]
        for batch, number in zip(some, numbers, strict=True):
            np.testing.assert_array_equal(batch.feeds["x"], every[number].feeds["x"])
