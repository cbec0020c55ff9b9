"""Cutting units = silencing them in the dense graph, on networks drawn at random."""

import os

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units.nets import BLOCKS, array, assert_same, network, parsed, put, run
from units.token_nets import TOKEN_BLOCKS, token_network

from onnxprune.errors import ModelError
from onnxprune.layers import find_layers
from onnxprune.model import load
from onnxprune.passes.remove_units import remove_units
from onnxprune.passes.replace import replace_units
from onnxprune.units import unit_groups
from onnxprune.units.families import find_families


def cuttable(groups, rng, fraction):
    """Some units at random, but never a whole axis."""
    chosen = groups.units[rng.random(len(groups.units)) < fraction]
    gone = np.zeros(groups.count, dtype=bool)
    gone[chosen] = True
    for section in groups.sections:
        labels = groups.labels[section.slots]
        if section.size and gone[labels].all():
            gone[labels[0]] = False
    return np.flatnonzero(gone)


def silence(model, groups, units):
    """Zero every weight that reads one of `units`."""
    for section in groups.sections:
        if section.role == "consumed":
            weight = section.value.const_value.numpy().copy()
            np.moveaxis(weight, section.axis, 0)[np.isin(groups.labels[section.slots], units)] = 0
            put(model, section.value.name, weight)


def weights(model):
    """How many floats the constants have."""
    arrays = [value.const_value for value in model.graph.initializers.values()]
    return sum(array.size for array in arrays if array.dtype.is_floating_point())


EXAMPLES = int(os.environ.get("ONNXPRUNE_EXAMPLES", "250"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(BLOCKS), max_size=6), st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.9])
)
def test_cutting_is_silencing(blocks, seed, fraction):
    model, feeds = network(blocks, seed)
    groups = unit_groups(model.graph)
    units = cuttable(groups, np.random.default_rng(seed), fraction)
    silence(model, groups, units)
    before = run(model, feeds)
    weighs = any(  # padding that is sliced off again is a unit without weights
        np.isin(groups.labels[section.slots], units).any()
        for section in groups.sections
        if section.role != "carried"
    )
    entries = weights(model)
    remove_units(model, groups, units)
    assert weights(model) < entries if weighs else weights(model) == entries
    assert_same(before, run(model, feeds, optimise=False))
    assert_same(before, run(model, feeds, optimise=True))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(TOKEN_BLOCKS), max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.2, 0.5, 0.9]),
    st.sampled_from(["whole", "narrow"]),
)
def test_cutting_is_silencing_on_tokens(blocks, seed, fraction, heads):
    """Units that no weight reads, such as dimensions of queries and keys, are silenced where made."""
    model, feeds = token_network(blocks, seed)
    model = load(model).ir  # biases behind MatMul are found in the normal form
    families = find_families(unit_groups(model.graph, heads=heads), find_layers(model.graph))
    groups, rng = families.groups, np.random.default_rng(seed)
    units = [
        unit
        for family in families.families
        for unit in rng.permutation(family.units)[: min(round(fraction * family.size), family.size - 1)]
    ]
    silenced = model.clone()
    replace_units(silenced, families.masks(units), families.silent(units))
    remove_units(model, groups, units)
    before = run(silenced, feeds)
    assert_same(before, run(model, feeds, optimise=False))
    assert_same(before, run(model, feeds, optimise=True))


def units_of(groups, model, name, axis=0):
    """The class of every index of one axis of a constant."""
    (slots,) = [s.slots for s in groups.sections if s.value.name == name and s.axis == axis]
    return groups.labels[slots]


def test_a_shared_vector_is_copied_where_its_readers_lose_different_units():
    model = parsed(
        """n (float[n, 4] x) => (float[n, 2] y) {
        a = Gemm (x, w1, b)  c = Relu (a)  d = Gemm (c, w2, b)  y = Gemm (d, w3) }""",
        {"w1": (4, 4), "w2": (4, 4), "w3": (4, 2), "b": (4,)},
    )
    groups = unit_groups(model.graph)
    bias = array(model, "b")
    remove_units(model, groups, [units_of(groups, model, "w1", 1)[0], units_of(groups, model, "w2", 1)[3]])
    first, second = (node.inputs[2].const_value.numpy() for node in list(model.graph)[0:3:2])
    np.testing.assert_array_equal(first, bias[1:])
    np.testing.assert_array_equal(second, bias[:3])
    assert "b" not in model.graph.initializers or model.graph.initializers["b"].uses()
    assert run(model, {"x": np.ones((3, 4), np.float32)})["y"].shape == (3, 2)


def test_attention_heads_go_as_a_whole_and_silencing_a_query_is_cutting_it():
    model = parsed(
        """n (float[n, 5, 8] x) => (float[n, 5, 8] y) {
        q1 = MatMul (x, wq)  q2 = Add (q1, bq)  q3 = Reshape (q2, heads)
        q = Transpose <perm = [0, 2, 1, 3]> (q3)
        k1 = MatMul (x, wk)  k2 = Reshape (k1, heads)  k = Transpose <perm = [0, 2, 3, 1]> (k2)
        v1 = MatMul (x, wv)  v2 = Reshape (v1, heads)  v = Transpose <perm = [0, 2, 1, 3]> (v2)
        s1 = MatMul (q, k)  s = Softmax <axis = -1> (s1)
        o1 = MatMul (s, v)  o2 = Transpose <perm = [0, 2, 1, 3]> (o1)  o = Reshape (o2, joined)
        y = MatMul (o, wo) }""",
        {"wq": (8, 6), "wk": (8, 6), "wv": (8, 6), "wo": (6, 8), "bq": (6,)},
        heads=np.array([0, 5, 3, 2]),
        joined=np.array([0, 5, 6]),
    )
    groups = unit_groups(model.graph)
    labels = units_of(groups, model, "wq", 1)
    assert labels[0] == labels[1] != labels[2]  # three heads of two columns each
    for name, axis in (("wk", 1), ("wv", 1), ("wo", 0)):
        np.testing.assert_array_equal(units_of(groups, model, name, axis), labels)
    weight = array(model, "wo").copy()
    weight[2:4] = 0
    put(model, "wo", weight)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 5, 8)).astype(np.float32)}
    before = run(model, feeds)
    remove_units(model, groups, [labels[2]])
    assert array(model, "heads").tolist() == [0, 5, 2, 2]
    assert array(model, "joined").tolist() == [0, 5, 4]
    assert_same(before, run(model, feeds))


def test_a_shape_joined_at_run_time_is_copied_where_its_readers_lose_different_units():
    model = parsed(
        """n (float[n, t, 4] x) => (float[n, t, 2] y) {
        s = Shape <end = 2> (x)  shape = Concat <axis = 0> (s, last)
        a = MatMul (x, w1)  a1 = Reshape (a, shape)  a2 = ReduceMax <keepdims = 0> (a1, two)
        b = MatMul (x, w2)  b1 = Reshape (b, shape)  b2 = ReduceMax <keepdims = 0> (b1, two)
        c = MatMul (a2, w3)  d = MatMul (b2, w4)  y = Add (c, d) }""",
        {"w1": (4, 6), "w2": (4, 6), "w3": (3, 2), "w4": (3, 2)},
        last=np.array([2, 3]),
        two=np.array([2]),
    )
    for node in model.graph:  # ONNX's inference does not see that n is n
        if node.op_type == "Reshape":
            node.outputs[0].shape = ir.Shape(["n", "t", 2, 3])
        if node.op_type == "ReduceMax":
            node.outputs[0].shape = ir.Shape(["n", "t", 3])
    groups = unit_groups(model.graph)
    units = [units_of(groups, model, "w3")[0], *units_of(groups, model, "w4")[1:]]
    silence(model, groups, units)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)}
    before = run(model, feeds)
    remove_units(model, groups, units)
    assert [array(model, name).shape for name in ("w1", "w2")] == [(4, 4), (4, 2)]
    assert_same(before, run(model, feeds))


def test_frozen_units_and_whole_axes_are_refused_and_nothing_changes():
    model = parsed(
        "n (float[n, 4] x) => (float[n, 2] y) { a = Gemm (x, w1)  y = Gemm (a, w2) }",
        {"w1": (4, 3), "w2": (3, 2)},
    )
    groups = unit_groups(model.graph)
    with pytest.raises(ModelError, match="'y' is an output of the model"):
        remove_units(model, groups, [units_of(groups, model, "w2", 1)[0]])
    with pytest.raises(ModelError, match="would lose all 3 indices"):
        remove_units(model, groups, units_of(groups, model, "w1", 1))
    assert array(model, "w1").shape == (4, 3)


def test_split_with_equal_parts_gets_sizes():
    model = parsed(
        """n (float[n, 3] x) => (float[n, 2] y) {
        a = Gemm (x, w1)  b, c = Split <axis = 1, num_outputs = 2> (a)
        d = Gemm (b, w2)  e = Gemm (c, w3)  y = Add (d, e) }""",
        {"w1": (3, 6), "w2": (3, 2), "w3": (3, 2)},
    )
    groups = unit_groups(model.graph)
    labels = units_of(groups, model, "w1", 1)
    silence(model, groups, [labels[1]])
    feeds = {"x": np.ones((2, 3), np.float32)}
    before = run(model, feeds)
    remove_units(model, groups, [labels[1]])
    assert_same(before, run(model, feeds))
    (split,) = [node for node in model.graph if node.op_type == "Split"]
    assert split.inputs[1].const_value.numpy().tolist() == [2, 3]


def test_grouped_convolutions_lose_the_same_index_in_every_group():
    model = parsed(
        """n (float[n, 4, 3, 3] x) => (float[n, 2, 3, 3] y) {
        a = Conv (x, w1)  b = Conv <group = 2> (a, w2)  y = Conv (b, w3) }""",
        {"w1": (8, 4, 1, 1), "w2": (6, 4, 1, 1), "w3": (2, 6, 1, 1)},
    )
    groups = unit_groups(model.graph)
    inputs, outputs = units_of(groups, model, "w1"), units_of(groups, model, "w2")
    np.testing.assert_array_equal(inputs[:4], inputs[4:])
    np.testing.assert_array_equal(outputs[:3], outputs[3:])
    units = [inputs[1], outputs[2]]
    silence(model, groups, units)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 4, 3, 3)).astype(np.float32)}
    before = run(model, feeds)
    remove_units(model, groups, units)
    assert array(model, "w2").shape == (4, 3, 1, 1)
    assert_same(before, run(model, feeds))


def test_the_clone_that_is_not_cut_stays_as_it_was():
    model, feeds = network(["conv", "residual"], 3)
    twin = model.clone()
    groups = unit_groups(model.graph)
    before = run(twin, feeds)
    remove_units(model, groups, cuttable(groups, np.random.default_rng(0), 0.5))
    np.testing.assert_array_equal(run(twin, feeds)["y"], before["y"])
    assert isinstance(twin, ir.Model)
