"""The statistics graph: its sums against numpy, its types, and what it leaves alone."""

import numpy as np
import onnx_ir as ir
import pytest
from tiny import relative, samples, twin_model
from units.nets import parsed, run

from onnxprune.emit import Emitter
from onnxprune.grams import times
from onnxprune.layers import find_layers
from onnxprune.statistics.entry import sum_type
from onnxprune.statistics.graph import build

FLOAT32 = 1e-6  # sums of at most 20 float32 products


def text(dtype):
    return f"net ({dtype}[n,4] x) => ({dtype}[n,3] y) {{ [one] h = MatMul(x, v) [two] y = MatMul(h, w) }}"


def two_layers(dtype="float", kind=np.float32):
    rng = np.random.default_rng(0)
    weights = {"v": rng.standard_normal((4, 5)), "w": rng.standard_normal((5, 3))}
    return parsed(text(dtype), **{name: array.astype(kind) for name, array in weights.items()})


def types(model):
    return {value.name: value.dtype for value in model.graph.outputs}


@pytest.mark.parametrize("groups", [1, 3])
def test_products_with_other_rows_are_sums_over_rows(groups):
    rng = np.random.default_rng(groups)
    x, y = (rng.standard_normal((groups, size, 20)).astype(np.float32) for size in (4, 6))
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="test")
    op = Emitter(graph, "test")
    result = times(op, op.constant(x), groups, op.constant(y))
    result.name, result.dtype = "result", ir.DataType.FLOAT
    graph.outputs.append(result)
    got = run(ir.Model(graph, ir_version=10), {})["result"]
    want = np.einsum("gir,gjr->gij", x, y, dtype=np.float64)
    assert got.shape == want.shape and relative(got, want) < FLOAT32


def test_sums_are_those_of_the_inputs_of_each_layer():
    model, x = two_layers(), samples((4,), 20)
    out = run(build(model, loss="auto", gradients=False, sampled={"two"}).model, {"x": x})
    assert set(out) == {"gram/0", "sum/0", "count/0", "rows/1", "sum/1", "count/1"}
    hidden = x.astype(np.float64) @ model.graph.initializers["v"].const_value.numpy()
    assert relative(out["gram/0"][0], x.T.astype(np.float64) @ x) < FLOAT32
    assert relative(out["rows/1"][0], hidden.T) < FLOAT32
    assert relative(out["sum/1"][0], hidden.sum(0)) < 10 * FLOAT32  # terms of either sign cancel
    assert [int(out[f"count/{index}"][0]) for index in (0, 1)] == [20, 20]


@pytest.mark.parametrize(
    "dtype, kind, sums",
    [
        ("float", np.float32, ir.DataType.FLOAT),
        ("double", np.float64, ir.DataType.DOUBLE),
        ("float16", np.float16, ir.DataType.FLOAT),  # squares of numbers over 256 exceed float16
    ],
)
def test_types_of_the_sums(dtype, kind, sums):
    model = two_layers(dtype, kind)
    assert [sum_type(layer) for layer in find_layers(model.graph)] == [sums, sums]
    made = build(model, loss="gaussian", gradients=True).model
    assert types(made) == {
        f"{name}/{index}": ir.DataType.INT64 if name == "count" else sums
        for index in (0, 1)
        for name in ("gram", "sum", "count", "gradient")
    }


def test_only_the_layers_asked_for_and_the_model_as_it_was():
    model = two_layers()
    before = str(ir.to_proto(model))
    graph = build(model, loss="gaussian", gradients=True, only={"two"})
    assert graph.layers == ["two"] and set(types(graph.model)) == {"gram/0", "sum/0", "count/0", "gradient/0"}
    assert str(ir.to_proto(model)) == before


def test_the_shapes_graph_says_what_the_noise_must_be():
    graph = build(twin_model("tokens"), loss="gaussian", gradients=True)
    assert set(types(graph.shapes)) == {entry.name for entry in graph.head.noise} != set()
    (shape,) = run(graph.shapes, {"x": samples((5, 6), 7)}).values()
    assert shape.tolist() == [7, 3]


def test_without_gradients_there_is_no_loss_and_no_noise():
    graph = build(two_layers(), loss="gaussian", gradients=False)
    assert (graph.head, graph.shapes, graph.blocked) == (None, None, {})
