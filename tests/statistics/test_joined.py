"""Small batches run several at once: what is sampled, and every sum, is of the batches as they were given."""

import sys

import numpy as np
import pytest
from tiny import TWINS, data_for, differ, reshaped_by_batches_of, samples, twin_model
from units.nets import parsed

from onnxprune.layers import find_layers
from onnxprune.statistics import Gathering, collect, feeding
from onnxprune.statistics.collect import Collector, arranged

collecting = sys.modules[Gathering.__module__]  # the package has a function of the module's name
FLOAT32 = 1e-5  # sums of some hundred float32 products, cut up elsewhere
CPU = Gathering(seed=5, provider="cpu")


def given(name, count=100, batch=3, labels=None):
    model = twin_model(name)
    arrays = {"x": samples(TWINS[name].shape, count)}
    return model, data_for(model, arrays if labels is None else arrays | {"labels": labels}, batch)


@pytest.mark.parametrize("loss", ["cross-entropy", "gaussian"])
@pytest.mark.parametrize("name", TWINS)
def test_the_noise_is_that_of_the_batches_given(name, loss, monkeypatch):
    """100 samples, 3 a batch, 12 at once: the last run has 4, of two batches."""
    model, data = given(name)
    how = Gathering(seed=5, provider="cpu", loss=loss)
    larger, arrangement = arranged(model, data, how)
    assert (larger.batch_size, arrangement.grain) == (12, 3)
    found = collect(model, "", data, how)
    monkeypatch.setattr(feeding, "_LEAST", 10**9)  # none are joined
    assert arranged(model, data, how) == (data, how)
    assert differ(collect(model, "", data, how), found) < FLOAT32


def test_labels_go_with_their_samples(monkeypatch):
    model, data = given("mlp", labels=np.arange(100) % 3)
    how = Gathering(provider="cpu", labels=True)
    found = collect(model, "", data, how)
    monkeypatch.setattr(feeding, "_LEAST", 10**9)  # none are joined
    assert differ(collect(model, "", data, how), found) < FLOAT32


@pytest.mark.parametrize("name", TWINS)
def test_joined_batches_may_be_shared_out(name):
    model, data = given(name)
    want = collect(model, "", data, CPU)
    data, how = arranged(model, data, CPU)
    first, second = Collector(model, data, how), Collector(model, data, how)
    for number, batch in enumerate(data.batches()):
        (first, second)[number % 2].add(number, batch)
    first.take_in(second.partial())
    assert differ(want, first.statistics("")) < 1e-14  # float64 sums in another order


def test_batches_whose_size_is_written_into_a_node_run_one_by_one():
    """The input leaves the batch open, a Reshape does not."""
    model = reshaped_by_batches_of(2)
    data = data_for(model, samples((6,), 64), 2)
    larger, _ = arranged(model, data, CPU)
    assert larger.batch_size > 2
    pieces = collect(model, "", data, CPU)
    collector = Collector(model, data, CPU)  # of the batches as they are
    for number, batch in enumerate(data.batches()):
        collector.add(number, batch)
    assert differ(collector.statistics(""), pieces) < FLOAT32


def test_a_gpu_is_given_more_and_never_less_than_a_batch(monkeypatch):
    model, data = given("cnn")
    layers = find_layers(model.graph).layers
    monkeypatch.setattr(collecting, "on_gpu", lambda provider: True)
    assert CPU.portion(layers, data) > 1000
    monkeypatch.setattr(collecting, "_ON_GPU", 1)
    assert CPU.portion(layers, data) == data.batch_size


@pytest.mark.parametrize(
    "how",
    [{"average": "exponential"}, {"positions": 3}, {"memory": 1 << 40}],
    ids=str,
)
def test_what_counts_by_the_batch_is_not_joined(how):
    model, data = given("cnn")
    how = Gathering(**how)
    assert arranged(model, data, how) == (data, how)


def test_however_small_the_layers_no_more_than_eight_are_joined():
    """Values beside the layers may be far larger, such as embeddings before their mean."""
    model, data = given("mlp", count=1000, batch=2)
    assert arranged(model, data, CPU)[0].batch_size == 16


def test_samples_of_several_shapes_are_not_joined():
    model = parsed("net (float[n,s,4] x) => (float[n,s,2] y) { y = MatMul(x, w) }", {"w": (4, 2)})
    data = data_for(model, [{"x": samples((size, 4), 64)} for size in (3, 5)], 2)
    assert arranged(model, data, CPU) == (data, CPU)
    assert collect(model, "", data, CPU).samples == 128
