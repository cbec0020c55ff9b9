"""The sweep on whole networks: masks are respected, and what is left is closer to the dense network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TWINS, data_for, samples, twin_model
from units.nets import BLOCKS, array, network, parsed

from onnxprune.errors import StatisticsError
from onnxprune.layers import find_layers
from onnxprune.rounds import geometric
from onnxprune.session import Session
from onnxprune.statistics import value_bytes
from onnxprune.sweep import Limits, sweep

NETS = {
    "residual": (
        """net (float[n,3,6,6] x) => (float[n,5] y) {
            [stem] s0 = Conv<pads=[1,1,1,1]>(x, k0, b0)
            a0 = Relu(s0)
            [conv1] s1 = Conv<pads=[1,1,1,1]>(a0, k1, b1)
            a1 = Relu(s1)
            [conv2] s2 = Conv<pads=[1,1,1,1]>(a1, k2, b2)
            r2 = Add(s2, a0)
            a2 = Relu(r2)
            [conv3] s3 = Conv<pads=[1,1,1,1], strides=[2,2]>(a2, k3, b3)
            [skip] s4 = Conv<strides=[2,2]>(a2, k4, b4)
            r4 = Add(s3, s4)
            a4 = Relu(r4)
            f = Flatten(a4)
            [head] y = Gemm(f, w, b)
        }""",
        {
            "k0": (6, 3, 3, 3), "b0": (6,), "k1": (6, 6, 3, 3), "b1": (6,), "k2": (6, 6, 3, 3), "b2": (6,),
            "k3": (8, 6, 3, 3), "b3": (8,), "k4": (8, 6, 1, 1), "b4": (8,), "w": (72, 5), "b": (5,),
        },
        (3, 6, 6),
    ),
    "concat": (
        """net (float[n,4,5,5] x) => (float[n,3] y) {
            [left] l = Conv(x, k1, b1)
            [right] r = Conv<pads=[1,1,1,1], group=2>(x, k2)
            al = Relu(l)
            ar = Relu(r)
            c = Concat<axis=1>(al, ar, x)
            [mix] m = Conv(c, k3, b3)
            am = Relu(m)
            p = GlobalAveragePool(am)
            f = Flatten(p)
            [head] y = Gemm(f, w)
        }""",
        {"k1": (5, 4, 1, 1), "b1": (5,), "k2": (4, 2, 3, 3), "k3": (6, 13, 1, 1), "b3": (6,), "w": (6, 3)},
        (4, 5, 5),
    ),
    "shared": (
        """net (float[n,6] x) => (float[n,4] y) {
            [in] h0 = Gemm(x, w0, b0)
            a0 = Tanh(h0)
            [twice] h1 = Gemm(a0, w1, b1)
            a1 = Tanh(h1)
            [again] h2 = Gemm(a1, w1, b1)
            a2 = Tanh(h2)
            [out] y = Gemm(a2, w2, b2)
        }""",
        {"w0": (6, 8), "b0": (8,), "w1": (8, 8), "b1": (8,), "w2": (8, 4), "b2": (4,)},
        (6,),
    ),
    "transposed": (
        """net (float[n,4,4,4] x) => (float[n,2,8,8] y) {
            [down] d = Conv<pads=[1,1,1,1]>(x, k1, b1)
            a = Relu(d)
            [up] y = ConvTranspose<strides=[2,2]>(a, k2, b2)
        }""",
        {"k1": (8, 4, 3, 3), "b1": (8,), "k2": (8, 2, 2, 2), "b2": (2,)},
        (4, 4, 4),
    ),
}  # fmt: skip


def net(name, seed=0):
    if name in TWINS:
        model, shape = twin_model(name, seed), TWINS[name].shape
    else:
        text, weights, shape = NETS[name]
        model = parsed(text, weights, seed)
    for layer in find_layers(model.graph):  # so that values stay of one size and no softmax saturates
        matrix, bias = layer.read()
        layer.write(matrix / np.sqrt(layer.d_in), bias)
    return model, shape


def run_all(model, data):
    session = Session(model, "cpu")
    runs = [session.run(batch.feeds) for batch in data.batches()]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def error(dense, pruned, data):
    """‖pruned − dense‖² / ‖dense − mean‖² over all outputs."""
    want, got = run_all(dense, data), run_all(pruned, data)
    lost = sum(((got[name] - want[name]).astype(np.float64) ** 2).sum() for name in want)
    return lost / sum(((want[name] - want[name].mean(0)).astype(np.float64) ** 2).sum() for name in want)


def random_masks(model, density, seed=3):
    rng = np.random.default_rng(seed)
    return {
        layer.name: rng.random((layer.groups, layer.d_out, layer.d_in)) < density
        for layer in find_layers(model.graph)
    }


def cut(model, masks):
    plain = model.clone()
    for layer in find_layers(plain.graph):
        matrix, bias = layer.read()
        layer.write(np.where(masks[layer.name], matrix, 0), bias)
    return plain


ALL = [*NETS, *TWINS]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ALL)
def test_with_the_same_masks_the_sweep_is_closer_than_plain_pruning(name, seed):
    dense, shape = net(name, seed)
    data = data_for(dense, samples(shape, 64), 16)
    masks = random_masks(dense, 0.5, seed)
    plain, swept = cut(dense, masks), cut(dense, masks)
    result = sweep(dense, swept, data, masks, {}, provider="cpu")
    assert set(result) == set(masks)
    for layer in find_layers(swept.graph):
        assert (layer.read()[0][~masks[layer.name]] == 0).all()
        assert (result[layer.name].kept == masks[layer.name]).all()
        assert result[layer.name].error >= 0
    assert error(dense, swept, data) < error(dense, plain, data)


@pytest.mark.parametrize("name", ALL)
def test_on_data_it_has_not_seen_too(name):
    dense, shape = net(name)
    masks = random_masks(dense, 0.6)
    swept = cut(dense, masks)
    sweep(dense, swept, data_for(dense, samples(shape, 256), 32), masks, {}, provider="cpu")
    fresh = data_for(dense, samples(shape, 64, seed=77))
    assert error(dense, swept, fresh) < error(dense, cut(dense, masks), fresh)


@pytest.mark.parametrize("name", ALL)
def test_where_all_is_kept_the_network_stays(name):
    dense, shape = net(name)
    data = data_for(dense, samples(shape, 32), 16)
    swept = dense.clone()
    sweep(dense, swept, data, random_masks(dense, 2.0), {}, provider="cpu")
    # each layer is fitted to itself, in float32 moments; the ridge pulls to the dense weights as well
    assert error(dense, swept, data) < 1e-6


@pytest.mark.parametrize("name", ALL)
def test_rounds_end_at_their_exact_counts(name):
    dense, shape = net(name)
    masks = random_masks(dense, 2.0)
    counts = {layer: max(1, mask.size // 3) for layer, mask in masks.items()}
    rounds = {layer: geometric(mask.size, counts[layer], 3) for layer, mask in masks.items()}
    swept = dense.clone()
    data = data_for(dense, samples(shape, 48), 16)
    result = sweep(dense, swept, data, masks, rounds, provider="cpu")
    for layer in find_layers(swept.graph):
        matrix, _ = layer.read()
        assert result[layer.name].kept.sum() == counts[layer.name] == np.count_nonzero(matrix)
    chosen = {layer: found.kept for layer, found in result.items()}
    assert error(dense, swept, data) < error(dense, cut(dense, chosen), data)


def test_a_layer_without_mask_is_not_touched():
    dense, shape = net("residual")
    masks = random_masks(dense, 0.5)
    del masks["conv2"], masks["head"]
    swept = dense.clone()
    sweep(dense, swept, data_for(dense, samples(shape, 32)), masks, {}, provider="cpu")
    for name in ("k2", "b2", "w", "b"):
        np.testing.assert_array_equal(array(swept, name), array(dense, name))
    assert (array(swept, "k1") != array(dense, "k1")).any()


def test_the_dense_network_is_not_touched():
    dense, shape = net("tokens")
    before = {name: value.const_value.numpy().copy() for name, value in dense.graph.initializers.items()}
    nodes = [node.name for node in dense.graph]
    sweep(
        dense,
        dense.clone(),
        data_for(dense, samples(shape, 16)),
        random_masks(dense, 0.5),
        {},
        provider="cpu",
    )
    assert [node.name for node in dense.graph] == nodes and list(dense.graph.initializers) == list(before)
    for name, weight in before.items():
        np.testing.assert_array_equal(array(dense, name), weight)


@pytest.mark.parametrize("name", ["residual", "concat"])
def test_the_error_told_is_that_of_the_last_layer(name):
    dense, shape = net(name)
    data = data_for(dense, samples(shape, 40), 8)
    masks = random_masks(dense, 0.5)
    swept = cut(dense, masks)
    result = sweep(dense, swept, data, masks, {}, provider="cpu")
    want, got = run_all(dense, data)["y"].astype(np.float64), run_all(swept, data)["y"]
    about = want - want.mean(0) * (name == "residual")  # without a bias the mean must be explained too
    # float32 moments of 40 rows
    assert result["head"].error == pytest.approx(((got - want) ** 2).sum() / (about**2).sum(), rel=1e-3)


def test_at_a_residual_sum_the_layer_repairs_what_the_shortcut_lost():
    """The shortcut loses half of the input; conv2 alone can put it back."""
    text = """net (float[n,6] x) => (float[n,6] y) {
        [short] s = MatMul(x, w1)
        a = Tanh(x)
        [long] l = MatMul(a, w2)
        y = Add(l, s)
    }"""
    dense = parsed(text, w1=np.eye(6, dtype=np.float32), w2=np.ones((6, 6), np.float32))
    masks = {"short": np.zeros((1, 6, 6), bool), "long": np.ones((1, 6, 6), bool)}
    swept = cut(dense, masks)
    data = data_for(dense, samples((6,), 400))
    assert error(dense, swept, data) > 0.1
    sweep(dense, swept, data, masks, {}, provider="cpu")
    # tanh of a unit normal explains 94 % of it linearly, and the identity is a sixth of the sum's variance or
    # less
    assert error(dense, swept, data) < 0.02


def test_values_that_overflow_name_the_layer():
    text = "net (float[n,4] x) => (float[n,4] y) { [one] h = Gemm(x, w, b) [two] y = Gemm(h, v) }"
    dense = parsed(text, {"w": (4, 4), "b": (4,), "v": (4, 4)})
    data = data_for(dense, np.full((8, 4), 1e30, np.float32))
    with pytest.raises(StatisticsError, match=r"layer 'one' \(Gemm\) has NaN or Inf"):
        sweep(dense, dense.clone(), data, random_masks(dense, 0.5), {}, provider="cpu")


def test_twice_the_same_is_the_same():
    dense, shape = net("residual")
    results = []
    for _ in range(2):
        swept = dense.clone()
        sweep(dense, swept, data_for(dense, samples(shape, 32)), random_masks(dense, 0.5), {}, provider="cpu")
        results.append(swept)
    for name in dense.graph.initializers:
        np.testing.assert_array_equal(array(results[0], name), array(results[1], name))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_random_networks_run_and_respect_their_masks(blocks, seed):
    dense, _ = network(blocks, seed)
    for number, node in enumerate(dense.graph):
        node.name = f"node_{number}"
    shape = tuple(size for size in dense.graph.inputs[0].shape if isinstance(size, int))
    masks = random_masks(dense, 0.6, seed)
    swept = cut(dense, masks)
    sweep(dense, swept, data_for(dense, samples(shape, 24), 12), masks, {}, provider="cpu")
    for layer in find_layers(swept.graph):
        matrix, bias = layer.read()
        assert (matrix[~masks[layer.name]] == 0).all() and np.isfinite(matrix).all()
        assert bias is None or np.isfinite(bias).all()


@pytest.mark.parametrize("name", ALL)
def test_parts_of_batches_sweep_as_whole_ones(name):
    """Batches of 8 in parts of one, of 3 and whole: the same rows are held back, the same fit comes out."""
    dense, shape = net(name)
    data, masks = data_for(dense, samples(shape, 48), 8), random_masks(dense, 0.5)
    largest = max(map(value_bytes, find_layers(dense.graph)))
    found = []
    for at_once in (1, 3 * largest, 1 << 30):
        swept = cut(dense, masks)
        limits = Limits(0, at_once)
        found.append((swept, sweep(dense, swept, data, masks, {}, provider="cpu", limits=limits)))
    whole, result = found.pop()
    for swept, parts in found:
        # float32 moments, cut up elsewhere; what the first layers differ by goes through all the others
        assert error(whole, swept, data) < 1e-5
        for layer, one in result.items():
            assert parts[layer].error == pytest.approx(one.error, rel=1e-2, abs=1e-5)
