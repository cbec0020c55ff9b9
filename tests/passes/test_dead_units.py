"""Dead units: what goes, what stays and why, and that the outputs cannot tell."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from units.nets import BLOCKS, array, assert_same, network, parsed, put, run

from onnxprune.model import load
from onnxprune.passes.dead_units import dead_mask, remove_dead_units


def floats(model):
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT
    }


def random_masks(model, rng, density):
    """Keep-masks of weights; now and then of a whole bias, since a zero passes where others do not."""
    weights = {
        name: rng.random(weight.shape) < density for name, weight in floats(model).items() if weight.ndim > 1
    }
    biases = [
        node.inputs[2] for node in model.graph if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2
    ]
    dropped = {
        bias.name: np.zeros(bias.shape, bool) for bias in biases if bias is not None and rng.random() < 0.3
    }
    return weights | dropped


def masked(model, masks):
    for name, mask in masks.items():
        weight = array(model, name)
        put(model, name, np.where(mask, weight, np.zeros((), weight.dtype)))
    return model


def check(model, feeds, tolerance=1e-4):
    """Remove; compare with the dense graph, onnxruntime's optimiser off and on; hand back the result."""
    before = run(model, feeds)
    result = remove_dead_units(model)
    assert_same(before, run(model, feeds, optimise=False), tolerance)
    assert_same(before, run(model, feeds, optimise=True), tolerance)
    assert remove_dead_units(model).removed == 0
    return result


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(BLOCKS), max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 0.15, 0.4]),
)
@example(["space", "conv", "depthwise", "grouped", "conv"], 281314, 0.05)  # after folding, others were spared
def test_outputs_stay_and_the_mask_foretells_what_goes(blocks, seed, density):
    model, feeds = network(blocks, seed)
    masks = random_masks(model, np.random.default_rng(seed), density)
    untouched = {name: weight.copy() for name, weight in floats(model).items()}
    foretold = dead_mask(model, masks)
    for name, weight in floats(model).items():
        np.testing.assert_array_equal(weight, untouched[name])
        assert foretold[name].shape == weight.shape
    result = check(masked(model, masks), feeds)
    for name, weight in floats(model).items():
        if name in foretold:
            left = untouched[name].size - foretold[name].sum()
            # a second round finds more in two cases: groups that shrank to one channel each come apart, and
            # of two axes about to be emptied one may have needed no unit of its own
            assert weight.size <= left
    assert (result.removed > 0) == any(mask.any() for mask in foretold.values())


CHAIN = """n (float[n, 4] x) => (float[n, 2] y) {
    a = Gemm (x, w1, b1)  b = Relu (a)  c = Gemm (b, w2, b2)  d = Sigmoid (c)  y = Gemm (d, w3) }"""
WEIGHTS = {"w1": (4, 5), "b1": (5,), "w2": (5, 6), "b2": (6,), "w3": (6, 2)}
ONES = {"x": np.ones((2, 4), np.float32)}


def zero(model, name, index):
    weight = array(model, name).copy()
    weight[index] = 0
    put(model, name, weight)


def test_a_unit_nobody_reads_goes_and_takes_those_along_that_only_it_read():
    model = parsed(CHAIN, WEIGHTS)
    zero(model, "w3", 1)
    zero(model, "w2", (3, slice(2, None)))
    zero(model, "w2", (3, 0))  # unit 3 of the first layer is now read by unit 1 of the second alone
    assert check(model, ONES).removed == 2
    assert {name: weight.shape for name, weight in floats(model).items()} == {
        "w1": (4, 4),
        "b1": (4,),
        "w2": (4, 5),
        "b2": (5,),
        "w3": (5, 2),
    }


def test_a_unit_that_reads_nothing_is_folded_into_a_bias_that_was_not_there():
    model = parsed(CHAIN, WEIGHTS)
    zero(model, "w2", (slice(None), 4))
    constant = 1 / (1 + np.exp(-array(model, "b2")[4]))
    column = array(model, "w3")[4]
    assert check(model, ONES).removed == 1
    gemm = list(model.graph)[-1]
    # float32 products against numpy's: a few units in the last place
    np.testing.assert_allclose(gemm.inputs[2].const_value.numpy(), constant * column, rtol=1e-5)


def test_dead_mask_names_every_entry_of_a_dead_unit():
    model = parsed(CHAIN, WEIGHTS)
    masks = {"w2": np.ones((5, 6), bool)}
    masks["w2"][2] = False
    dead = dead_mask(model, masks)
    expected = {name: np.zeros(shape, bool) for name, shape in WEIGHTS.items()}
    expected["w1"][:, 2] = expected["b1"][2] = expected["w2"][2] = True
    assert dead.keys() == expected.keys()
    for name in dead:
        np.testing.assert_array_equal(dead[name], expected[name])


CONV = """n (float[n, 2, 6, 6] x) => (float[n, 2, OUT, OUT] y) {
    a = Conv (x, w1, b1)  b = Relu (a)  y = Conv <PADS> (b, w2, b2) }"""
CONV_WEIGHTS = {"w1": (3, 2, 1, 1), "w2": (2, 3, 3, 3), "b2": (2,)}
IMAGE = {"x": np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)}


@pytest.mark.parametrize(
    ("pads", "size", "bias", "removed"),
    [
        ("kernel_shape = [3, 3]", "4", 1.0, 1),
        ("pads = [1, 1, 1, 1]", "6", 1.0, 0),
        ('auto_pad = "SAME_UPPER"', "6", 1.0, 0),
        ("pads = [1, 1, 1, 1]", "6", -1.0, 1),  # Relu makes it 0, which padding does not tell apart
    ],
)
def test_a_constant_is_folded_through_a_convolution_only_where_padding_does_not_show_it(
    pads, size, bias, removed
):
    text = CONV.replace("PADS", pads).replace("OUT", size)
    model = parsed(text, CONV_WEIGHTS, b1=np.float32([0.1, bias, 0.2]))
    zero(model, "w1", 1)
    result = check(model, IMAGE)
    assert result.removed == removed
    assert [note.name for note in result.kept] == ([] if removed else ["conv_0"])
    if not removed:
        assert "Conv 'conv_2' pads with zeros" in result.kept[0].reason


POOLS = {
    "GlobalAveragePool": 1,
    "GlobalMaxPool": 1,
    "AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]>": 1,
    "AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1>": 0,
    "AveragePool <kernel_shape = [2, 2], count_include_pad = 1>": 1,
    "MaxPool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]>": 1,
    "LpPool <kernel_shape = [2, 2]>": 0,
}


@pytest.mark.parametrize("pool", POOLS)
def test_which_poolings_carry_a_constant(pool):
    model = parsed(
        f"""n (float[n, 2, 6, 6] x) => (float[n, 2, p, q] y) {{
        a = Conv (x, w1, b1)  b = {pool} (a)  y = Conv (b, w2) }}""",
        {"w1": (3, 2, 1, 1), "w2": (2, 3, 1, 1)},
        b1=np.float32([1, 2, 3]),
    )
    zero(model, "w1", 1)
    assert check(model, IMAGE).removed == POOLS[pool]


def test_a_constant_spreads_over_all_positions_of_a_flattened_layer():
    model = parsed(
        """n (float[n, 2, 6, 6] x) => (float[n, 3] y) {
        a = Conv (x, w1, b1)  b = Flatten (a)  y = Gemm (b, w2) }""",
        {"w1": (3, 2, 1, 1), "w2": (108, 3), "b1": (3,)},
    )
    zero(model, "w1", 0)
    check(model, IMAGE)
    assert array(model, "w2").shape == (72, 3)


def test_a_residual_sum_keeps_a_unit_that_one_branch_still_makes():
    text = """n (float[n, 4] x) => (float[n, 2] y) {
        a = Gemm (x, w1, b1)  b = Gemm (x, w2, b2)  c = Add (a, b)  d = Relu (c)  y = Gemm (d, w3) }"""
    weights = {"w1": (4, 5), "w2": (4, 5), "w3": (5, 2), "b1": (5,), "b2": (5,)}
    model = parsed(text, weights)
    zero(model, "w1", (slice(None), 1))
    result = check(model, ONES)
    assert result.removed == 0
    assert result.kept[0].name == "gemm_0"
    zero(model, "w2", (slice(None), 1))
    assert check(model, ONES).removed == 1


def test_a_layer_keeps_its_last_unit():
    model = parsed(CHAIN, WEIGHTS)
    zero(model, "w2", slice(None))
    result = check(model, ONES)
    assert array(model, "w1").shape == (4, 1)
    assert array(model, "w2").shape == (1, 1)
    assert any("keep one" in note.reason or "has one index" in note.reason for note in result.kept)


def test_matmul_without_an_add_gets_one_and_the_output_keeps_its_name():
    model = parsed(
        """n (float[n, 3, 4] x) => (float[n, 3, 2] y) {
        a = MatMul (x, w1)  b = Add (a, b1)  y = MatMul (b, w2) }""",
        {"w1": (4, 5), "w2": (5, 2), "b1": (5,)},
    )
    zero(model, "w1", (slice(None), 0))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)}
    assert check(model, feeds).removed == 1
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert [node.op_type for node in model.graph] == ["MatMul", "Add", "MatMul", "Add"]


def test_weights_on_the_left_fold_into_a_column():
    model = parsed(
        "n (float[4, m] x) => (float[2, m] y) { a = MatMul (w1, x)  b = Add (a, b1)  y = MatMul (w2, b) }",
        {"w1": (5, 4), "w2": (2, 5), "b1": (5, 1)},
    )
    zero(model, "w1", 0)
    assert check(model, {"x": np.ones((4, 3), np.float32)}).removed == 1


def test_a_product_with_a_dead_gate_is_dead():
    model = parsed(
        """n (float[n, 2, 6, 6] x) => (float[n, 2, 6, 6] y) {
        a = Conv (x, w1)  p = GlobalAveragePool (a)  q = Conv (p, w2, b2)  g = Sigmoid (q)  b = Mul (a, g)
        y = Conv <pads = [1, 1, 1, 1]> (b, w3) }""",
        {"w1": (4, 2, 1, 1), "w2": (4, 4, 1, 1), "b2": (4,), "w3": (2, 4, 3, 3)},
    )
    zero(model, "w1", 2)
    assert check(model, IMAGE).removed == 1


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_batch_normalization_carries_a_constant_and_makes_one_of_a_zero_scale(scale):
    model = parsed(
        """n (float[n, 2, 6, 6] x) => (float[n, 2, 6, 6] y) {
        a = Conv (x, w1)  b = BatchNormalization (a, s, o, m, v)  y = Conv (b, w2) }""",
        {"w1": (3, 2, 1, 1), "o": (3,), "m": (3,), "w2": (2, 3, 1, 1)},
        s=np.float32([1, scale, 1]),
        v=np.float32([1, 2, 3]),
    )
    if scale:
        zero(model, "w1", 1)
    assert check(model, IMAGE).removed == 1


def test_a_weight_shared_by_two_layers_is_folded_for_each_with_its_own_constants():
    model = parsed(
        """n (float[n, 4] x) => (float[n, 2] y) {
        a = Gemm (x, w1, b1)  b = Gemm (x, w2, b2)
        c = Gemm (a, w)  d = Gemm (b, w)  y = Sub (c, d) }""",
        {"w1": (4, 3), "w2": (4, 3), "b1": (3,), "b2": (3,), "w": (3, 2)},
    )
    zero(model, "w1", (slice(None), 1))
    assert check(model, ONES).removed == 0
    zero(model, "w2", (slice(None), 1))
    assert check(model, ONES).removed == 1


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), (np.float16, 5e-3)]
)  # a few roundings each
def test_other_precisions_keep_their_dtype(dtype, tolerance):
    model = parsed(CHAIN, WEIGHTS)
    zero(model, "w2", (slice(None), 4))
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    for value in [*model.graph.inputs, *model.graph.outputs, *(v for n in model.graph for v in n.outputs)]:
        value.dtype = kind
    for name, weight in floats(model).items():
        model.graph.initializers[name].dtype = kind
        put(model, name, weight.astype(dtype))
    assert check(model, {"x": ONES["x"].astype(dtype)}, tolerance).removed == 1
    assert {value.const_value.dtype for value in model.graph.initializers.values()} == {kind}


def test_weights_read_inside_a_subgraph_stay():
    model = parsed(
        """n (float[n, 4] x, bool c) => (float[n, 2] y) {
        a = Gemm (x, w1)
        y = If (c) <then_branch = t () => (float[n, 2] p) { p = Gemm (a, w2) },
                    else_branch = e () => (float[n, 2] q) { q = Gemm (a, w3) }> }""",
        {"w1": (4, 3), "w2": (3, 2), "w3": (3, 2)},
    )
    zero(model, "w1", (slice(None), 0))
    result = check(model, {**ONES, "c": np.array(True)})
    assert result.removed == 0
    assert "inside a subgraph" in result.kept[0].reason


def test_lenets_at_three_percent_lose_units_and_nothing_else(lenet_300_100, lenet_5):
    for path, shape in ((lenet_300_100, (8, 784)), (lenet_5, (8, 1, 28, 28))):
        model, rng = load(path).ir, np.random.default_rng(0)
        masks = {name: rng.random(w.shape) < 0.03 for name, w in floats(model).items() if w.ndim > 1}
        foretold = dead_mask(model, masks)
        entries = sum(weight.size for weight in floats(model).values())
        name = model.graph.inputs[0].name
        result = check(masked(model, masks), {name: rng.random(shape, dtype=np.float32)})
        assert result.removed > 0
        assert result.parameters == sum(mask.sum() for mask in foretold.values())
        assert sum(weight.size for weight in floats(model).values()) == entries - result.parameters


@pytest.mark.parametrize(
    "file",
    [
        "resnet20_cifar10_bn",
        "mobilenetv1_025_128",
        "magika_standard_v3_3",
        "vgglike_cifar10",
        "basic_pitch_nmp",
    ],
)
def test_published_models_with_two_percent_of_their_weights(shared, file):
    model, rng = load(shared / "models" / f"{file}.onnx").ir, np.random.default_rng(0)
    masks = {
        name: rng.random(w.shape) < 0.02 for name, w in floats(model).items() if w.ndim > 1 and w.size > 200
    }
    (given_input,) = model.graph.inputs
    shape = [dim if isinstance(dim, int) else 1 for dim in given_input.shape]
    batch = (rng.random(shape) * 200).astype(given_input.dtype.numpy())
    assert check(masked(model, masks), {given_input.name: batch}).removed > 0
