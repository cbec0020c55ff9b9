"""Sums that wait for several batches are those of the batches, whatever their sizes."""

import numpy as np
import onnx_ir as ir
import pytest
from nets_of_few_rows import NETS
from tiny import relative
from units.nets import parsed

from onnxprune.data import open_data
from onnxprune.statistics import Gathering, collect
from onnxprune.statistics.graph import build
from onnxprune.statistics.waiting import Queue, postponed

# Products in float32 of a few hundred rows, grouped otherwise.
ROUNDING = 1e-6


def gathered(model, x, batch):
    return collect(
        model, "", open_data({"x": x}, model.graph.inputs, batch_size=batch), Gathering(loss="gaussian")
    )


@pytest.mark.parametrize("name", NETS)
def test_statistics_are_those_of_one_large_batch(name):
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


def test_what_waits_is_summed_when_there_is_enough_and_at_the_end():
    like = ir.Value(name="x", shape=ir.Shape([1, 4, None]), type=ir.TensorType(ir.DataType.FLOAT))

    def make(op, rows):
        total = op.ReduceSum(rows, op.ints(2), keepdims=0)
        total.dtype = ir.DataType.FLOAT
        return {"sum/0": total}

    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="main")
    queue = Queue.of(postponed(like, graph, 2, 2, make), "cpu")
    part = np.ones((1, 4, 2), np.float32)
    assert [len(queue.add(number, part)) for number in range(5)] == [0, 1, 0, 1, 0]
    assert [number for number in queue.waits()] == [4]
    (left,) = queue.flush()
    np.testing.assert_array_equal(left["sum/0"], np.full((1, 4), 2.0))
    assert list(queue.flush()) == []


def test_a_group_is_of_the_same_batches_whichever_comes_first():
    like = ir.Value(name="x", shape=ir.Shape([1, 1, None]), type=ir.TensorType(ir.DataType.FLOAT))

    def make(op, rows):
        whole = op.Identity(rows)
        whole.dtype = ir.DataType.FLOAT
        return {"sum/0": whole}

    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="main")
    queue = Queue.of(postponed(like, graph, 2, 2, make), "cpu")
    found = {number: queue.add(number, np.full((1, 1, 1), number, np.float32)) for number in (3, 0, 4, 2, 1)}
    assert {number: sums["sum/0"].ravel().tolist() for number, sums in found.items() if sums} == {
        2: [2.0, 3.0],
        1: [0.0, 1.0],
    }


def test_an_exponential_average_waits_for_nothing():
    text, weights, _ = NETS["dense"]
    model = parsed(text, weights)
    assert not build(model, loss="gaussian", gradients=True, batch=3).waiting
