"""Packing: exact, smaller, folded by onnxruntime at load, and read back as ordinary weights."""

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxprune.model import load, parameters
from onnxprune.output import without_annotations
from onnxprune.passes.cleanup import cleanup
from onnxprune.passes.pack import encode, pack, unpack
from onnxprune.session import Session


def size(model):
    return len(ir.to_proto(without_annotations(model)).SerializeToString())


def lenet_5(density, seed=0, dtype=np.float32):
    """The paper's LeNet-5 (20-50-500-10, 430,500 weights), the given fraction of every weight kept."""
    rng = np.random.default_rng(seed)
    shapes = {"k1": (20, 1, 5, 5), "k2": (50, 20, 5, 5), "w1": (800, 500), "w2": (500, 10)}
    kind = {np.float32: "float", np.float16: "float16", np.float64: "double"}[dtype]
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
        lenet ({kind}[n, 1, 28, 28] x) => ({kind}[n, 10] y) {{
        a = Conv (x, k1)  b = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        c = Conv (b, k2)  d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
        e = Flatten (d)  f = Gemm (e, w1)  g = Relu (f)  y = Gemm (g, w2) }}""")
    for name, shape in shapes.items():
        weight = (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(dtype)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return load(proto).ir


@settings(deadline=None, max_examples=60)  # a deadline measures the machine
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 900)),
        elements=st.sampled_from([0.0, 1.5, -2.25]),
        fill=st.just(0.0),
    )
)
def test_encoding_is_undone_by_a_cumulative_sum(weight):
    gaps, values = encode(weight)
    assert gaps.dtype == np.uint8 and len(gaps) == len(values)
    dense = np.zeros(weight.size, weight.dtype)
    positions = np.cumsum(gaps, dtype=np.int64)
    assert (np.diff(positions) > 0).all(), "no entry is written twice"
    dense[positions] = values
    np.testing.assert_array_equal(dense.reshape(weight.shape), weight)


@pytest.mark.parametrize("distance", [1, 254, 255, 256, 510, 511, 5000])
def test_gaps_around_the_limit_of_a_byte(distance):
    weight = np.zeros(distance + 1, np.float32)
    weight[[0, distance]] = 1, 2
    gaps, values = encode(weight)
    dense = np.zeros_like(weight)
    dense[np.cumsum(gaps, dtype=np.int64)] = values
    np.testing.assert_array_equal(dense, weight)
    assert len(gaps) == 1 + -(-distance // 255), "as few stored zeros as possible"


def test_an_all_zero_weight_packs():
    model = lenet_5(0.0)
    pack(model)
    x = np.ones((1, 1, 28, 28), np.float32)
    for optimise in (False, True):
        assert not Session(model, "cpu", optimise=optimise).run({"x": x})["y"].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("optimise", [False, True])
def test_fp32_packing_changes_nothing(dtype, optimise):
    dense, packed = lenet_5(0.04, dtype=dtype), lenet_5(0.04, dtype=dtype)
    result = pack(packed)
    assert set(result.packed) >= {"k2", "w1"}
    x = np.random.default_rng(1).standard_normal((2, 1, 28, 28)).astype(dtype)
    want = Session(dense, "cpu", optimise=optimise).run({"x": x})["y"]
    got = Session(packed, "cpu", optimise=optimise).run({"x": x})["y"]
    # With optimisations off the weight is no constant, and onnxruntime multiplies in another order: an ulp of
    # the largest term for every one of the ~30 terms kept.
    tolerance = 0 if optimise else 32 * np.finfo(dtype).eps * np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


def test_float64_weights_keep_their_precision():
    weight = np.zeros((64, 64))
    weight[::7, ::5] = np.pi
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (double[n, 64] x) => (double[n, 64] y) { y = MatMul (x, w) }""")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model = load(proto).ir
    assert pack(model).packed
    np.testing.assert_array_equal(Session(model, "cpu").run({"x": np.eye(64)})["y"], weight)


@pytest.mark.parametrize(("values", "limit"), [("fp32", 100_000), ("fp16", 65_000)])
def test_lenet_5_at_four_percent(values, limit):
    model = lenet_5(0.04)
    before = size(model)
    result = pack(model, values)
    assert size(model) <= limit
    # to the byte, but for the graph's own length field, which may need one less
    assert abs(before - size(model) - result.saved) <= 1


def test_onnxruntime_folds_it_at_load(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")

    def loaded(model):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 4  # it warns that the optimised file is for this machine
        proto = ir.to_proto(model).SerializeToString()
        onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        return collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)

    model = lenet_5(0.04)
    dense = loaded(model)
    pack(model)
    assert loaded(model) == dense


@pytest.mark.parametrize("values", ["fp32", "fp16"])
def test_loading_and_unpacking_see_ordinary_weights(values):
    model = lenet_5(0.04)
    before = {name: tensor.numpy() for name, tensor in parameters(model).items()}
    ops = [node.op_type for node in model.graph]
    pack(model, values)
    for dense in (load(model).ir, unpack(model)):
        assert [node.op_type for node in dense.graph] == ops
        assert set(dense.graph.initializers) == set(before)
        for name, weight in before.items():
            want = weight.astype(np.float16).astype(np.float32) if values == "fp16" else weight
            got = dense.graph.initializers[name].const_value.numpy()
            np.testing.assert_array_equal(got, want)


def test_dense_and_small_weights_stay():
    model = lenet_5(0.9)
    assert pack(model).packed == {}
    assert "w1" in model.graph.initializers


def test_values_beyond_half_precision_are_skipped_with_the_reason():
    model = lenet_5(0.04)
    weight = model.graph.initializers["w1"].const_value.numpy().copy()
    weight[0, 0] = 1e5
    model.graph.initializers["w1"].const_value = ir.tensor(weight, name="w1")
    result = pack(model, "fp16")
    assert "w1" not in result.packed and "k2" in result.packed
    assert any(note.name == "w1" and "float16" in note.reason for note in result.skipped)


def test_a_file_never_grows():
    for density in (0.0, 0.05, 0.2, 0.5, 0.75, 0.79, 0.81, 1.0):
        model = lenet_5(density)
        before = size(model)
        pack(model)
        assert size(model) <= before


def test_a_weight_of_which_most_is_kept_is_stored_in_half_precision_whole():
    model = lenet_5(0.9)
    want = {name: tensor.numpy().astype(np.float16) for name, tensor in parameters(model).items()}
    before = size(model)
    assert set(pack(model, "fp16").packed) == set(want)
    assert 0.5 * before < size(model) < 0.51 * before
    for name, tensor in parameters(load(model)).items():
        np.testing.assert_array_equal(tensor.numpy(), want[name].astype(np.float32))


def test_weights_without_a_zero_are_not_rounded():
    assert pack(lenet_5(1.0), "fp16").packed == {}


def test_names_already_taken_are_not_reused():
    model = lenet_5(0.04)
    model.graph[0].outputs[0].name = "w1/Cast_1"
    pack(model)
    x = np.zeros((1, 1, 28, 28), np.float32)
    assert Session(model, "cpu").run({"x": x})["y"].shape == (1, 10)


def test_weights_captured_by_a_subgraph_are_packed_and_still_found():
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 64] x, bool flag) => (float[n, 64] y) {
        y = If (flag) <then_branch = t () => (float[n, 64] a) { a = MatMul (x, w) },
                       else_branch = e () => (float[n, 64] b) { b = Relu (x) }> }"""
    proto = onnx.parser.parse_model(text)
    weight = np.zeros((64, 64), np.float32)
    weight[::7, ::5] = 1
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model = load(proto).ir
    assert pack(model).packed
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    # same numbers in another order of summation: a few ulp of sums of ten terms
    np.testing.assert_allclose(
        Session(model, "cpu").run({"x": x, "flag": np.array(True)})["y"], x @ weight, rtol=1e-5, atol=1e-5
    )


def test_cleanup_shares_equal_weights_and_drops_unused_ones():
    model = lenet_5(1.0)
    same = np.ones((500, 10), np.float32)
    for name in ("w2", "twin", "unused"):
        value = ir.Value(name=name, const_value=ir.tensor(same, name=name))
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(same.shape)
        if name == "w2":
            model.graph.initializers["w2"].const_value = value.const_value
        else:
            model.graph.register_initializer(value)
    twin = ir.node("Gemm", [model.graph[-1].inputs[0], model.graph.initializers["twin"]], name="second")
    twin.outputs[0].name = "z"
    model.graph.append(twin)
    model.graph.outputs.append(twin.outputs[0])
    cleanup(model)
    assert "unused" not in model.graph.initializers and "twin" not in model.graph.initializers
    assert twin.inputs[1] is model.graph.initializers["w2"]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    before = size(model)
    cleanup(model)
    assert size(model) == before
