"""Rows: drawn ones are as many in every sample, never twice the same, and every start together draws all."""

import numpy as np
import onnx_ir as ir
import pytest
from units.nets import run

from onnxprune.emit import Emitter
from onnxprune.rows import Drawn, Every


def numbers_of(make, count, starts):
    """The numbers of `count` rows for every start."""
    start = ir.val("start", dtype=ir.DataType.INT64, shape=[])
    graph = ir.Graph([start], [], nodes=[], opset_imports={"": 18}, name="test")
    op = Emitter(graph, "test")
    rows = make(start)
    taken = rows.of(op, op.constant(np.arange(count, dtype=np.float32)[None, None]))
    for name, value in (("numbers", rows.numbers(op, op.constant(count, np.int64))), ("taken", taken)):
        value.name, value.dtype = name, ir.DataType.INT64 if name == "numbers" else ir.DataType.FLOAT
        graph.outputs.append(value)
    model = ir.Model(graph, ir_version=10)
    found = [run(model, {"start": np.asarray(value, np.int64)}) for value in starts]
    for out in found:
        np.testing.assert_array_equal(out["numbers"], out["taken"].reshape(-1))
    return np.array([out["numbers"] for out in found])


@pytest.mark.parametrize("positions, kept", [(2, 1), (7, 3), (12, 5), (16, 15), (49, 8), (36, 1)])
def test_drawn_rows(positions, kept):
    samples = 5
    found = numbers_of(lambda start: Drawn(start, positions, kept), samples * positions, range(positions))
    for numbers in found:
        assert len(set(numbers)) == samples * kept
        assert (np.bincount(numbers // positions) == kept).all()
    # over all starts each row comes as often as any other: the expectation is that of all rows, exactly
    assert (np.bincount(found.reshape(-1), minlength=samples * positions) == kept).all()


def test_a_large_start_is_as_good_as_a_small_one():
    small, large = (
        numbers_of(lambda start: Drawn(start, 10, 4), 50, [start]) for start in (3, 3 + 10 * 2**55)
    )
    np.testing.assert_array_equal(small, large)


def test_drawn_positions_spread_over_rows_and_columns_of_a_map():
    side, kept = 32, 64
    (numbers,) = numbers_of(lambda start: Drawn(start, side * side, kept), side * side, [5])
    for axis in (numbers // side, numbers % side):
        assert len(set(axis)) == side and np.bincount(axis).max() <= 2 * kept // side


def test_every_few_rows():
    (numbers,) = numbers_of(lambda start: Every(3), 11, [0])
    assert numbers.tolist() == [0, 3, 6, 9]
