"""Layers: of every linear node matrix · features + bias are the outputs; writing undoes reading."""

# ruff: noqa: E501  the table of kinds has one a line

import numpy as np
import onnx_ir as ir
import pytest
from tiny import relative
from units.nets import array, parsed, run

from onnxprune.emit import Emitter
from onnxprune.layers import find_layers
from onnxprune.rows import Every
from onnxprune.statistics.graph import build

FLOAT32 = 1e-5  # sums of a few hundred float32 products

# name: inputs' type, nodes (the layer is named `it`), weights, output rank, groups, (d_out, d_in)
KINDS = {
    "conv 1-d": ("[n,3,9]", "y = Conv<strides=[2], pads=[2,0], dilations=[2]>(x, w, b)", {"w": (4, 3, 3), "b": (4,)}, 3, 1, (4, 9)),
    "conv 2-d": ("[n,3,7,8]", "y = Conv<strides=[2,1], pads=[1,0,2,1]>(x, w, b)", {"w": (4, 3, 3, 2), "b": (4,)}, 4, 1, (4, 18)),
    "conv 3-d": ("[n,2,4,5,4]", "y = Conv<pads=[1,1,0,0,1,1], strides=[1,2,1]>(x, w)", {"w": (3, 2, 2, 3, 2)}, 5, 1, (3, 24)),
    "conv without bias": ("[n,3,7,8]", "y = Conv(x, w)", {"w": (4, 3, 3, 2)}, 4, 1, (4, 18)),
    "pointwise": ("[n,3,4,4]", "y = Conv(x, w, b)", {"w": (4, 3, 1, 1), "b": (4,)}, 4, 1, (4, 3)),
    "pointwise, strided": ("[n,3,5,5]", "y = Conv<strides=[2,2]>(x, w, b)", {"w": (4, 3, 1, 1), "b": (4,)}, 4, 1, (4, 3)),
    "pointwise, padded": ("[n,3,5,5]", "y = Conv<pads=[1,0,0,0]>(x, w, b)", {"w": (4, 3, 1, 1), "b": (4,)}, 4, 1, (4, 3)),
    "dilated": ("[n,2,9,9]", "y = Conv<dilations=[2,3], pads=[2,3,2,3]>(x, w, b)", {"w": (3, 2, 3, 3), "b": (3,)}, 4, 1, (3, 18)),
    "groups": ("[n,6,5,5]", "y = Conv<group=3, pads=[1,1,1,1]>(x, w, b)", {"w": (6, 2, 3, 3), "b": (6,)}, 4, 3, (2, 18)),
    "depthwise": ("[n,4,5,5]", "y = Conv<group=4, pads=[1,1,1,1]>(x, w, b)", {"w": (4, 1, 3, 3), "b": (4,)}, 4, 4, (1, 9)),
    "depthwise, two each": ("[n,3,5,5]", "y = Conv<group=3>(x, w, b)", {"w": (6, 1, 3, 3), "b": (6,)}, 4, 3, (2, 9)),
    "one channel": ("[n,1,5,5]", "y = Conv(x, w, b)", {"w": (3, 1, 3, 3), "b": (3,)}, 4, 1, (3, 9)),
    "same upper": ("[n,2,6,7]", 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)', {"w": (3, 2, 3, 2), "b": (3,)}, 4, 1, (3, 12)),
    "same lower": ("[n,2,6,7]", 'y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)', {"w": (3, 2, 3, 2), "b": (3,)}, 4, 1, (3, 12)),
    "same upper, pointwise, strided": ("[n,2,6,7]", 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', {"w": (3, 2, 1, 1)}, 4, 1, (3, 2)),
    "valid": ("[n,2,6,7]", 'y = Conv<auto_pad="VALID">(x, w, b)', {"w": (3, 2, 3, 2), "b": (3,)}, 4, 1, (3, 12)),
    "kernel_shape": ("[n,2,6,7]", "y = Conv<kernel_shape=[3,2]>(x, w, b)", {"w": (3, 2, 3, 2), "b": (3,)}, 4, 1, (3, 12)),
    "transposed": ("[n,3,4,5]", "y = ConvTranspose<strides=[2,3], pads=[1,0,0,1], output_padding=[1,2]>(x, w, b)", {"w": (3, 2, 3, 4), "b": (2,)}, 4, 1, (2, 36)),
    "transposed, groups": ("[n,4,3,3]", "y = ConvTranspose<group=2, strides=[2,2]>(x, w, b)", {"w": (4, 3, 2, 2), "b": (6,)}, 4, 2, (3, 8)),
    "transposed, depthwise": ("[n,3,3,3]", "y = ConvTranspose<group=3, strides=[2,2], dilations=[2,1]>(x, w)", {"w": (3, 1, 2, 3)}, 4, 3, (1, 6)),
    "transposed 1-d": ("[n,3,5]", "y = ConvTranspose<dilations=[2]>(x, w, b)", {"w": (3, 2, 3), "b": (2,)}, 3, 1, (2, 9)),
    "transposed, pointwise": ("[n,3,4,4]", "y = ConvTranspose(x, w, b)", {"w": (3, 2, 1, 1), "b": (2,)}, 4, 1, (2, 3)),
    "transposed, pointwise, strided": ("[n,3,4,4]", "y = ConvTranspose<strides=[2,2], output_padding=[1,1]>(x, w, b)", {"w": (3, 2, 1, 1), "b": (2,)}, 4, 1, (2, 3)),
    "transposed, same": ("[n,3,4,4]", 'y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w, b)', {"w": (3, 2, 3, 3), "b": (2,)}, 4, 1, (2, 27)),
    "transposed, output_shape": ("[n,3,4,4]", "y = ConvTranspose<strides=[2,2], output_shape=[8,7]>(x, w, b)", {"w": (3, 2, 3, 3), "b": (2,)}, 4, 1, (2, 27)),
    "gemm": ("[n,5]", "y = Gemm(x, w, b)", {"w": (5, 3), "b": (3,)}, 2, 1, (3, 5)),
    "gemm, turned, scaled": ("[n,5]", "y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", {"w": (3, 5), "b": (3,)}, 2, 1, (3, 5)),
    "gemm, bias as a row": ("[n,5]", "y = Gemm(x, w, b)", {"w": (5, 3), "b": (1, 3)}, 2, 1, (3, 5)),
    "gemm, one output": ("[n,5]", "y = Gemm(x, w, b)", {"w": (5, 1), "b": ()}, 2, 1, (1, 5)),
    "gemm without bias": ("[n,5]", "y = Gemm<alpha=3.0, beta=0.0>(x, w)", {"w": (5, 3)}, 2, 1, (3, 5)),
    "matmul": ("[n,5]", "y = MatMul(x, w)", {"w": (5, 3)}, 2, 1, (3, 5)),
    "matmul of tokens": ("[n,4,5]", "y = MatMul(x, w)", {"w": (5, 3)}, 3, 1, (3, 5)),
    "matmul and bias": ("[n,4,5]", "m = MatMul(x, w) y = Add(m, b)", {"w": (5, 3), "b": (3,)}, 3, 1, (3, 5)),
    "bias and matmul": ("[n,2,4,5]", "m = MatMul(x, w) y = Add(b, m)", {"w": (5, 3), "b": (1, 1, 3)}, 4, 1, (3, 5)),
    "matmul from the left": ("[n,5,4]", "y = MatMul(w, x)", {"w": (3, 5)}, 3, 1, (3, 5)),
    "matmul from the left, deep": ("[n,2,5,4]", "y = MatMul(w, x)", {"w": (3, 5)}, 4, 1, (3, 5)),
    "matmul from the left, flat": ("[5,n]", "y = MatMul(w, x)", {"w": (3, 5)}, 2, 1, (3, 5)),
}  # fmt: skip


def model_of(kind):
    given, nodes, weights, rank, _, _ = KINDS[kind]
    named = "[it] " + nodes
    sizes = ",".join(f"o{axis}" for axis in range(rank))
    return parsed(f"net (float{given} x) => (float[{sizes}] y) {{ {named} }}", weights)


def feed(kind, count=2):
    text = KINDS[kind][0].strip("[]").split(",")
    shape = [count if size == "n" else int(size) for size in text]
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def folded(model, layer, stride=1):
    """Features and responses of the layer's only use, run."""
    op = Emitter(model.graph, "test")
    (use,) = layer.uses
    rows = Every(stride) if stride > 1 else None
    for name, value in (
        ("features", layer.features(op, use.input, rows)),
        ("responses", layer.responses(op, use.output, rows)),
    ):
        value.name, value.type = name, ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_times_features_and_bias_are_the_responses(kind):
    model = model_of(kind)
    (layer,) = find_layers(model.graph)
    _, _, weights, _, groups, (d_out, d_in) = KINDS[kind]
    assert layer.name == "it" and layer.shape == weights["w"]
    assert (layer.groups, layer.d_out, layer.d_in) == (groups, d_out, d_in)
    assert (layer.bias is not None) == ("b" in weights)
    folded(model, layer)
    out = run(model, {"x": feed(kind)})
    assert out["features"].shape[:2] == (groups, d_in) and out["responses"].shape[:2] == (groups, d_out)
    assert out["responses"].size == out["y"].size
    matrix, bias = layer.read()
    assert matrix.dtype == np.float64 and matrix.shape == (groups, d_out, d_in)
    product = matrix @ out["features"] + (0 if bias is None else bias[:, :, None])
    assert relative(product, out["responses"]) < FLOAT32


@pytest.mark.parametrize("stride", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_few_rows_are_those_of_all_rows(kind, stride):
    """Gathered patches are copies, so that they are equal to the last digit."""
    whole, few = model_of(kind), model_of(kind)
    for model, step in ((whole, 1), (few, stride)):
        (layer,) = find_layers(model.graph)
        folded(model, layer, step)
    want, got = (run(model, {"x": feed(kind, 3)}) for model in (whole, few))
    for name in ("features", "responses"):
        np.testing.assert_array_equal(got[name], want[name][:, :, ::stride])


def test_more_pixels_than_one_digit_counts_are_told_apart():
    shape = "float[n,1,80,70]"
    model = parsed(f"net ({shape} x) => (float[n,1,78,68] y) {{ y = Conv(x, w) }}", {"w": (1, 1, 3, 3)})
    x = np.random.default_rng(0).standard_normal((2, 1, 80, 70)).astype(np.float32)
    outputs = []
    for step in (1, 7):
        copy = model.clone()
        folded(copy, next(iter(find_layers(copy.graph))), step)
        outputs.append(run(copy, {"x": x})["features"])
    np.testing.assert_array_equal(outputs[1], outputs[0][:, :, ::7])


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_rows_a_sample(kind):
    model = model_of(kind)
    given, nodes, weights = KINDS[kind][:3]
    fixed = given.replace("n", "2")
    y = run(model, {"x": feed(kind)})["y"]
    shape = ",".join(str(size) for size in y.shape)
    static = parsed(f"net (float{fixed} x) => (float[{shape}] y) {{ [it] {nodes} }}", weights)
    (layer,) = find_layers(static.graph)
    rows = y.size // (layer.groups * layer.d_out)
    samples = 1 if kind == "matmul from the left, flat" else 2  # there the columns are all there is to count
    assert layer.uses[0].positions == rows // samples
    assert layer.macs == layer.size * rows // samples


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_and_tensor_are_inverse(kind):
    (layer,) = find_layers(model_of(kind).graph)
    rng = np.random.default_rng(0)
    tensor = rng.standard_normal(layer.shape)
    np.testing.assert_allclose(layer.tensor(layer.matrix(tensor)), tensor, rtol=1e-15)
    matrix = rng.standard_normal((layer.groups, layer.d_out, layer.d_in))
    np.testing.assert_allclose(layer.matrix(layer.tensor(matrix)), matrix, rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_and_run(kind):
    model = model_of(kind)
    (layer,) = find_layers(model.graph)
    old = {name: array(model, name) for name in KINDS[kind][2]}
    before = run(model, {"x": feed(kind)})["y"]
    matrix, bias = layer.read()
    layer.write(matrix, bias)
    for name, tensor in old.items():
        again = array(model, name)
        assert (again.shape, again.dtype) == (tensor.shape, tensor.dtype)
        np.testing.assert_array_equal(again, tensor)  # alpha and beta here are such that dividing is exact
    layer.write(-3 * matrix, None if bias is None else -3 * bias)
    assert relative(run(model, {"x": feed(kind)})["y"], -3 * before) < FLOAT32


# -- what a layer is
# --------------------------------------------------------------------------------------------


def found_in(nodes, weights, given="[n,4]", given_y="[n,o]", **arrays):
    return find_layers(
        parsed(f"net (float{given} x) => (float{given_y} y) {{ {nodes} }}", weights, **arrays).graph
    )


def reasons(found):
    return {entry.name: entry.reason for entry in found.skipped}


def test_layers_come_in_graph_order():
    found = found_in(
        "[c] h = Gemm(x, w1) [a] r = MatMul(h, w2) [b] y = Gemm(r, w3)",
        {"w1": (4, 4), "w2": (4, 4), "w3": (4, 2)},
    )
    assert [layer.name for layer in found] == ["c", "a", "b"] and len(found) == 3 and not found.skipped


def test_a_shared_weight_is_one_layer_with_several_uses():
    found = found_in("[one] h = Gemm(x, w, b) r = Relu(h) [two] y = Gemm(r, w, b)", {"w": (4, 4), "b": (4,)})
    (layer,) = found
    assert (
        layer.name == "one"
        and [use.node.name for use in layer.uses] == ["one", "two"]
        and layer.bias is not None
    )


@pytest.mark.parametrize(
    "nodes, weights",
    [
        ("[one] h = Gemm(x, w) [two] y = Gemm<transB=1>(h, w)", {"w": (4, 4)}),
        ("[one] h = Gemm(x, w) [two] y = Gemm<alpha=2.0>(h, w)", {"w": (4, 4)}),
        ("[one] h = MatMul(x, w) [two] y = MatMul(w, h)", {"w": (4, 4)}),
        ("[one] h = Gemm(x, w) [two] y = MatMul(h, w)", {"w": (4, 4)}),
        ("[one] h = Gemm(x, w, b) [two] y = Gemm<beta=2.0>(h, w, b)", {"w": (4, 4), "b": (4,)}),
    ],
)
def test_a_weight_that_nodes_read_differently_is_left_alone(nodes, weights):
    found = found_in(nodes, weights, given="[4,4]", given_y="[4,4]")
    assert not found.layers and "in 2 places that read it" in reasons(found)["one"]


@pytest.mark.parametrize("attributes", ["strides=[2,2]", "dilations=[2,2]", "pads=[1,1,1,1]"])
def test_a_kernel_shared_by_convolutions_of_other_geometry_is_left_alone(attributes):
    """im2col is one geometry: patches of the second node would have been those of the first."""
    nodes = f"[one] a = Conv(x, w) [two] b = Conv<{attributes}>(x, w) f = Flatten(a) g = Flatten(b) y = Concat<axis=1>(f, g)"
    found = found_in(nodes, {"w": (2, 3, 3, 3)}, given="[n,3,8,8]")
    assert not found.layers and "in 2 places that read it" in reasons(found)["one"]


def test_a_shared_bias_is_left_alone():
    nodes = "[one] h = Gemm(x, w1, b) [two] y = Gemm(h, w2, b)"
    found = found_in(nodes, {"w1": (4, 4), "w2": (4, 4), "b": (4,)})
    assert set(reasons(found)) == {"one", "two"} and all(
        "bias b is shared" in text for text in reasons(found).values()
    )


def test_a_shared_weight_with_two_biases_is_left_alone():
    nodes = "[one] h = Gemm(x, w, b1) [two] y = Gemm(h, w, b2)"
    found = found_in(nodes, {"w": (4, 4), "b1": (4,), "b2": (4,)})
    assert "shared by nodes with different biases" in reasons(found)["one"]


def test_a_weight_that_something_else_reads_is_left_alone():
    found = found_in("[one] h = MatMul(x, w) [sum] s = ReduceSum(w) y = Add(h, s)", {"w": (4, 4)})
    assert "also read by sum" in reasons(found)["one"]


def test_a_weight_that_is_an_output_is_left_alone():
    model = parsed("net (float[n,4] x) => (float[n,3] y) { [one] y = MatMul(x, w) }", {"w": (4, 3)})
    model.graph.outputs.append(model.graph.initializers["w"])
    assert "also read by a graph output" in reasons(find_layers(model.graph))["one"]


def test_a_computed_weight_is_named_for_convolutions_and_no_weight_for_products():
    nodes = "[scale] k = Mul(w, w) [one] c = Conv(x, k) [q] y = MatMul(c, c)"
    found = found_in(nodes, {"w": (3, 3, 1, 1)}, given="[n,3,4,4]", given_y="[n,3,4,4]")
    assert not found.layers and reasons(found) == {"one": "its weight is computed at run time"}


def test_a_computed_bias_leaves_the_layer_alone():
    nodes = "[m] b = ReduceMean<keepdims=0>(x, axes) [one] y = Conv(x, w, b)"
    found = found_in(
        nodes, {"w": (3, 3, 1, 1)}, given="[n,3,4,4]", given_y="[n,3,4,4]", axes=np.array([0, 2, 3], np.int64)
    )
    assert reasons(found) == {"one": "its bias is computed at run time"}


def test_weights_that_are_no_matrices_are_left_alone():
    found = found_in("[one] y = MatMul(x, w)", {"w": (2, 4, 3)}, given="[2,5,4]", given_y="[2,5,3]")
    assert "has rank 3" in reasons(found)["one"]


def test_gemm_with_transposed_samples_is_left_alone():
    found = found_in("[one] y = Gemm<transA=1>(x, w)", {"w": (5, 3)}, given="[5,n]")
    assert "transA" in reasons(found)["one"]


def test_gemm_with_a_bias_a_row_is_left_alone():
    """[3, 1] over three columns has as many entries as a bias, but adds one of them to each sample."""
    found = found_in("[one] y = Gemm(x, w, b)", {"w": (4, 3), "b": (3, 1)}, given="[3,4]", given_y="[3,3]")
    assert "no constant vector over the output units" in reasons(found)["one"]


@pytest.mark.parametrize("attributes", ["alpha=0.0", "beta=0.0"])
def test_gemm_that_multiplies_by_zero_is_left_alone(attributes):
    """What is written is divided by alpha and beta."""
    found = found_in(f"[one] y = Gemm<{attributes}>(x, w, b)", {"w": (4, 3), "b": (3,)})
    assert not found.layers and "zero" in reasons(found)["one"]


@pytest.mark.parametrize(
    "nodes",
    [
        "m = MatMul(x, w) y = Add(m, b) z = Identity(m)",  # the product is read elsewhere too
        "m = MatMul(x, w) y = Add(m, c)",  # a constant for each token is no bias
        "m = MatMul(x, w) y = Add(m, b) z = Relu(b)",  # the constant is read elsewhere
        "m = MatMul(x, w) y = Add(m, m)",
    ],
)
def test_an_add_that_is_no_bias(nodes):
    text = f"net (float[n,4,5] x) => (float[n,4,3] y) {{ [it] {nodes} }}"
    weights = {"w": (5, 3)} | ({"b": (3,)} if " b)" in nodes or "(b)" in nodes else {})
    weights |= {"c": (4, 3)} if " c)" in nodes else {}
    (layer,) = find_layers(parsed(text, weights).graph)
    assert layer.bias is None and layer.uses[0].output.name == "m"


def test_a_quantised_weight_is_left_alone():
    nodes = "[deq] w = DequantizeLinear(q, scale) [one] y = MatMul(x, w)"
    found = found_in(nodes, {}, q=np.ones((4, 3), np.int8), scale=np.float32(0.1))
    assert not found.layers and reasons(found) == {"one": "already quantised"}


def test_integer_products_are_left_alone():
    text = "net (uint8[n,4] x) => (int32[n,3] y) { [one] y = MatMulInteger(x, w) }"
    found = find_layers(parsed(text, w=np.ones((4, 3), np.int8)).graph)
    assert reasons(found) == {"one": "already quantised"}


def test_recurrent_and_conditional_weights_are_left_alone():
    text = """net (float[t,n,4] x, bool c) => (float[t,d,n,2] y, float[p,q] z) {
        [cell] y = LSTM<hidden_size=2>(x, w, r)
        [choice] z = If (c) <then_branch = one () => (float[p,q] a) { a = MatMul(m, m) },
                             else_branch = two () => (float[p,q] b) { b = Identity(m) }>
    }"""
    found = find_layers(parsed(text, {"w": (1, 8, 4), "r": (1, 8, 2), "m": (3, 3)}).graph)
    assert (
        not found.layers and "recurrent" in reasons(found)["cell"] and "inside If" in reasons(found)["choice"]
    )


def test_custom_ops_are_no_layers():
    model = parsed("net (float[n,4] x) => (float[n,3] y) { [one] y = MatMul(x, w) }", {"w": (4, 3)})
    next(iter(model.graph)).domain = "elsewhere"
    assert not find_layers(model.graph).layers


def test_half_precision_sums_in_single():
    model = parsed(
        "net (float16[n,4] x) => (float16[n,3] y) { [one] y = MatMul(x, w) }", w=np.ones((4, 3), np.float16)
    )
    graph = build(model, loss="auto", gradients=False)
    x = np.full((600, 4), 20, np.float16)  # Σ x² = 240,000: beyond float16
    out = run(graph.model, {"x": x})
    assert out["gram/0"].dtype == np.float32 and (out["gram/0"] == 240_000).all()
