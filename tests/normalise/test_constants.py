"""Constant nodes, folding of what does not depend on the input, and what must not be folded."""

import numpy as np
import onnx
import pytest

from onnxprune.model import load, parameters


def test_every_kind_of_constant_becomes_an_initializer_of_its_name(parse, unchanged, ops):
    text = """g (float[n, 4] x) => (float[n, 4] y, int64[1] i) {
        w = Constant <value = float[4] {1, 2, 3, 4}> ()
        a = Constant <value_float = 2.0> ()
        i = Constant <value_ints = [7]> ()
        m = Mul (x, w)
        y = Add (m, a) }"""
    model = unchanged(parse(text))
    assert ops(model) == ["Mul", "Add"]
    assert set(model.graph.initializers) == {"w", "a", "i"}


@pytest.mark.parametrize(
    "chain",
    [
        "k = Identity (w)",
        "k = Transpose <perm = [1, 0]> (w)",
        "s = Shape (w) k = Reshape (w, s)",
        "d = Cast <to = 11> (w) k = Cast <to = 1> (d)",
        "t = Transpose <perm = [1, 0]> (w) u = Unsqueeze (t, zero) k = Squeeze (u, zero)",
    ],
)
def test_weights_behind_other_ops_become_plain_weights(parse, unchanged, ops, chain):
    text = f"g (float[n, 4] x) => (float[n, 4] y) {{ {chain} y = MatMul (x, k) }}"
    weights = {"zero": np.array([0])} if "zero" in chain else {}
    model = unchanged(parse(text, w=(4, 4), **weights))
    assert ops(model) == ["MatMul"]
    assert set(parameters(model)) == {"k"}


def test_shape_clutter_over_static_axes_folds_although_the_batch_is_dynamic(parse, unchanged, ops):
    text = """g (float[batch, 3, 8] x) => (float[b, c, l] y) {
        s = Shape (x)  c = Gather (s, one)  u = Unsqueeze (c, zero)  l = Slice (s, two, three)
        t = Concat <axis = 0> (zero, u, l)  y = Reshape (x, t) }"""
    integers = {"one": np.array(1), "zero": np.array([0]), "two": np.array([2]), "three": np.array([3])}
    assert ops(unchanged(parse(text, **integers))) == ["Reshape"]


def test_a_dynamic_axis_is_never_folded_and_its_rank_is_known(parse, unchanged, ops):
    text = """g (float[batch, 3, 8] x) => (float[b, l] y) {
        s = Shape (x)  c = Gather (s, zero)  t = Concat <axis = 0> (c, size)
        r = Reshape (x, t)  y = Relu (r) }"""
    model = unchanged(parse(text, zero=np.array([0]), size=np.array([24])))
    assert ops(model) == ["Shape", "Gather", "Concat", "Reshape", "Relu"]
    reshape = next(node for node in model.graph if node.op_type == "Reshape")
    assert reshape.outputs[0].shape is not None
    assert (reshape.outputs[0].shape.rank(), reshape.outputs[0].shape[1]) == (2, 24)


def test_nothing_huge_is_folded(parse, unchanged, ops):
    text = "g (float[n, 4] x) => (float[a, b] y) { e = ConstantOfShape (size) y = MatMul (x, e) }"
    assert ops(unchanged(parse(text, size=np.array([4, 200_000])))) == ["ConstantOfShape", "MatMul"]


def test_random_ops_are_not_folded(parse, ops):
    text = """g (float[n, 4] x) => (float[n, 4] y) {
        r = RandomNormal <shape = [4]> ()  y = Add (x, r) }"""
    assert ops(load(parse(text))) == ["RandomNormal", "Add"]


def test_quantised_weights_are_left_alone_and_noted(parse, unchanged, ops, rng):
    text = "g (float[n, 4] x) => (float[n, 4] y) { k = DequantizeLinear (q, scale) y = MatMul (x, k) }"
    model = unchanged(parse(text, q=rng.integers(-9, 9, (4, 4)).astype(np.int8), scale=np.float32(0.1)))
    assert ops(model) == ["DequantizeLinear", "MatMul"]
    assert any("quantised" in note.reason for note in model.notes)


def test_sparse_tensors_are_written_out(parse, unchanged):
    proto = parse("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul (x, k) }")
    values = onnx.numpy_helper.from_array(np.array([1, 2], np.float32), "k")
    indices = onnx.numpy_helper.from_array(np.array([1, 11]), "k_indices")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4, 3]))
    dense = np.zeros((4, 3), np.float32)
    dense.flat[[1, 11]] = [1, 2]
    np.testing.assert_array_equal(parameters(load(proto))["k"].numpy(), dense)


def test_what_a_subgraph_captures_survives_under_its_name(parse, unchanged):
    text = """g (float[n, 4] x, bool flag) => (float[n, 4] y) {
        w = Constant <value = float[4] {1, 2, 3, 4}> ()
        v = Identity (w)
        y = If (flag) <
            then_branch = t () => (float[n, 4] a) {
                k = Constant <value_float = 1.0> ()  m = Mul (x, v)  a = Add (m, k) },
            else_branch = e () => (float[n, 4] b) { b = Add (x, w) }> }"""
    for flag in (True, False):
        model = unchanged(parse(text), flag=np.array(flag))
        assert set(model.graph.initializers) == {"w", "v"}
        branches = [graph for graph in model.graph.subgraphs() if graph is not model.graph]
        assert "Constant" in [node.op_type for graph in branches for node in graph], (
            "subgraphs are left alone"
        )


def test_a_used_node_with_an_unused_output_stays_and_dead_ones_go(parse, unchanged, ops):
    text = """g (float[n, 4] x) => (float[n, 2] y) {
        y, rest = Split <axis = 1> (x, sizes)  dead = Relu (rest)  deader = Exp (dead) }"""
    model = unchanged(parse(text, sizes=np.array([2, 2]), orphan=(3,)))
    assert ops(model) == ["Split"]
    assert "orphan" not in model.graph.initializers


def test_a_gather_of_everything_in_order_hid_the_channels_behind_as_strided(parse, unchanged, ops):
    """As torch exports the Flatten of ConvNeXt and Swin; one index out of place is no view."""
    text = """g (float[2, 3, 1, 1] x) => (float[2, 3] y) {{
        flat = Constant <value_ints = [-1]> ()
        i = Constant <value = int64[2, 3] {{0, 1, 2, 3, {last}}}> ()
        f = Reshape (x, flat)
        y = Gather (f, i) }}"""
    assert ops(unchanged(parse(text.format(last="4, 5")))) == ["Reshape", "Reshape"]
    assert ops(unchanged(parse(text.format(last="5, 4")))) == ["Reshape", "Gather"]
