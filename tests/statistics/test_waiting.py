"""Sums that wait for several batches are those of the batches, whatever their sizes."""

import numpy as np
import onnx_ir as ir
import pytest
from nets_of_few_rows import NETS
from tiny import relative
from units.nets import parsed

from onnxprune.data import open_data
from onnxprune.statistics import Gathering, collect, entry
from onnxprune.statistics.graph import build
from onnxprune.statistics.waiting import ROWS, Queues, Waiting, apart

# Products in float32 of a few hundred rows, grouped otherwise.
ROUNDING = 1e-6


def gathered(model, x, batch):
    return collect(
        model, "", open_data({"x": x}, model.graph.inputs, batch_size=batch), Gathering(loss="gaussian")
    )


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_statistics_are_those_of_one_large_batch(name, narrow, monkeypatch):
    monkeypatch.setattr(entry, "ONE_THREAD", 1024 if narrow else 2)
    text, weights, shape = NETS[name]
    model = parsed(text, weights)
    x = np.random.default_rng(0).standard_normal((70, *shape)).astype(np.float32)
    want = gathered(model, x, 70)  # every row at once: nothing waits
    noisy = gathered(model, x, 3)
    assert build(model, loss="gaussian", gradients=True, batch=3, wait=True).waiting
    for layer, known in want.layers.items():
        found = noisy.layers[layer]
        assert (found.rows, found.samples) == (known.rows, known.samples)
        assert relative(found.activations.mean(), known.activations.mean()) < ROUNDING
        # the noise is drawn by batches, so that G is another draw: of 70 samples or more, of one scale
        assert 0.5 < np.trace(found.gradients.mean()[0]) / np.trace(known.gradients.mean()[0]) < 2


def queues(batches, make=None, squared=(), dtype=ir.DataType.FLOAT):
    """Queues of one output, `given`; without `make` it is rows."""
    like = ir.Value(name="x", shape=ir.Shape([None, 3]), type=ir.TensorType(dtype))
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="main")
    model = None if make is None else apart(like, graph, make)
    return Queues({"given": Waiting(model, batches, 3, squared)}, "cpu")


def typed(value, dtype=ir.DataType.FLOAT):
    value.dtype = dtype
    return value


def test_what_waits_is_summed_when_there_is_enough_and_at_the_end():
    found = queues(2, lambda op, x: {"sum/0": typed(op.ReduceSum(x, op.ints(0), keepdims=0))})
    part = np.ones((2, 3), np.float32)
    sums = [found.add(number, {"given": part, "count/0": number}) for number in range(5)]
    assert [sorted(each) for each in sums] == [["count/0"], ["count/0", "sum/0"]] * 2 + [["count/0"]]
    assert [list(parts) for parts in found.waits().values()] == [[4]]
    (left,) = found.flush()
    np.testing.assert_array_equal(left["sum/0"], np.full(3, 2.0))
    assert list(found.flush()) == []


def test_a_group_is_of_the_same_batches_whichever_comes_first():
    waiting = queues(2, lambda op, x: {"sum/0": typed(op.Identity(x))})
    found = {
        number: waiting.add(number, {"given": np.full((1, 3), number, np.float32)})
        for number in (3, 0, 4, 2, 1)
    }
    assert {number: sums["sum/0"][:, 0].tolist() for number, sums in found.items() if sums} == {
        2: [2.0, 3.0],
        1: [0.0, 1.0],
    }


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64)], ids=str)
@pytest.mark.parametrize("way", ["as they are", "read by a graph"])
def test_squares_are_those_of_the_rows_given(way, dtype):
    parts = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(dtype)
    own = ir.DataType.from_numpy(dtype)

    def read(op, x):
        return {ROWS: typed(op.Unsqueeze(op.Transpose(x), op.ints(0)), own)}

    found = queues(2, None if way == "as they are" else read, ("gram/7", "sum/7"), own)
    assert found.add(0, {"given": parts[0]}) == {}
    sums, rows = found.add(1, {"given": parts[1]}), parts.reshape(10, 3).astype(np.float64)
    assert sums["gram/7"].dtype == dtype and sums["gram/7"].shape == (1, 3, 3)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12  # ten rows' products, rounded
    np.testing.assert_allclose(sums["gram/7"][0], rows.T @ rows, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(sums["sum/7"][0], rows.sum(0), rtol=tolerance, atol=tolerance)


def test_an_exponential_average_waits_for_nothing():
    text, weights, _ = NETS["dense"]
    model = parsed(text, weights)
    assert not build(model, loss="gaussian", gradients=True, batch=3).waiting
