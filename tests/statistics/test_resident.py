"""Sums that stay on the device are those that are added on the host; on a CPU the device is the host."""

import sys

import numpy as np
import pytest
from nets_of_few_rows import NETS
from tiny import relative
from units.nets import parsed

from onnxprune.data import open_data
from onnxprune.session import Session
from onnxprune.statistics import Gathering, collect
from onnxprune.statistics.graph import build
from onnxprune.statistics.resident import Resident

collecting = sys.modules["onnxprune.statistics.collect"]  # the package exports a function of this name

# Products in float32 of a few hundred rows, grouped otherwise: on a GPU no sum waits for other batches.
ROUNDING = 1e-6


@pytest.mark.parametrize("positions", [None, 3])
@pytest.mark.parametrize("name", NETS)
def test_statistics_are_those_added_on_the_host(name, positions, monkeypatch):
    text, weights, shape = NETS[name]
    if positions and name == "dense":
        pytest.skip("a layer of one position a sample has none to leave out")
    model = parsed(text, weights)
    x = np.random.default_rng(0).standard_normal((70, *shape)).astype(np.float32)
    data = open_data({"x": x}, model.graph.inputs, batch_size=9)
    how = Gathering(loss="gaussian", positions=positions)
    want = collect(model, "", data, how)
    monkeypatch.setattr(collecting, "on_gpu", lambda choice: True)
    found = collect(model, "", data, how)
    for layer, known in want.layers.items():
        got = found.layers[layer]
        assert (got.rows, got.samples) == (known.rows, known.samples)
        assert relative(got.activations.mean(), known.activations.mean()) < ROUNDING
        assert relative(got.gradients.mean(), known.gradients.mean()) < ROUNDING


def test_only_what_does_not_add_up_comes_back_with_a_batch():
    text, weights, shape = NETS["convolutions"]
    model = parsed(text, weights)
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    graph = build(model, loss="gaussian", gradients=False, batch=4)
    known = Session(graph.model, "cpu").run({"x": x})
    resident = Resident.of(graph.model, "cpu")
    assert {name.partition("/")[0] for name in resident.run({"x": x})} == {"count"}
    resident.run({"x": x})
    totals = resident.flush()
    assert totals and all(total.dtype == np.float64 for total in totals.values())
    for name, total in totals.items():  # twice the same batch, exactly
        np.testing.assert_array_equal(total, 2 * known[name].astype(np.float64))
