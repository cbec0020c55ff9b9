"""Moments against numpy, on targets with terms, strides and shared weights; the ridge of held-back rows."""

import numpy as np
import onnx_ir as ir
import pytest
from tiny import data_for, samples
from units.nets import array, parsed

from onnxprune.layers import find_layers
from onnxprune.refit import RIDGE
from onnxprune.session import Session
from onnxprune.statistics import Gathering, Gram, Samples, collect
from onnxprune.sweep.moments import MomentsGraph, moments_of_all_uses
from onnxprune.sweep.ridge import ridge
from onnxprune.sweep.sums import Moments, RowMoments
from onnxprune.sweep.targets import find_target

FLOAT32 = 1e-5  # sums of a few hundred float32 products

MODEL = """net (float[n,5,6] x, float[n,5,4] c, float[4] d) => (float[n,5,4] y) {
    [it] m = MatMul(x, w)
    s = Add(m, b)
    t = Sub(c, s)
    u = Add(t, d)
    y = Relu(u)
}"""


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=FLOAT32 * np.abs(want).max())


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("stride", [1, 3])
def test_moments_are_sums_over_rows(sampled, stride):
    model = parsed(MODEL, {"w": (6, 4), "b": (4,)})
    (layer,) = find_layers(model.graph)
    use = layer.uses[0]
    target = find_target(use.output, lambda value: True)
    assert target.value.name == "u" and target.sign == -1 and len(target.terms) == 2
    graph = MomentsGraph(layer, use, target, sampled=sampled, stride=stride, opset=18, provider="cpu")
    x, dense, c, d = samples((5, 6), 7), samples((5, 4), 7, 1), samples((5, 4), 7, 2), samples((4,), 1, 3)[0]
    found = graph.run({"input": x, "target": dense, "term0": c, "term1": d})
    rows = x.reshape(-1, 6)[::stride].astype(np.float64)
    wanted = -(dense.astype(np.float64) - c - d).reshape(-1, 4)[::stride]
    assert found.weight == len(rows) and isinstance(found, RowMoments if sampled else Moments)
    if sampled:
        close(found.rows[0], rows)
        close(found.targets[0], wanted)
        return
    close(found.gram.mean()[0], rows.T @ rows / len(rows))
    close(found.cross[0], wanted.T @ rows)
    close(found.input[0], rows.sum(0))
    close(found.target[0], wanted.sum(0))
    close(found.square[0], (wanted**2).sum(0))


def test_moments_of_grouped_convolutions_stay_in_their_groups():
    model = parsed(
        """net (float[n,4,6,6] x) => (float[n,6,3,3] y) {
            [it] y = Conv<group=2, strides=[2,2], pads=[0,1,1,0]>(x, w, b)
        }""",
        {"w": (6, 2, 3, 3), "b": (6,)},
    )
    (layer,) = find_layers(model.graph)
    use = layer.uses[0]
    graph = MomentsGraph(
        layer,
        use,
        find_target(use.output, lambda value: True),
        sampled=False,
        stride=1,
        opset=18,
        provider="cpu",
    )
    x = samples((4, 6, 6), 8)
    weights, bias = layer.read()
    y = Session(ir.Model(model.graph, ir_version=10), "cpu").run({"x": x})["y"]
    found = graph.run({"input": x, "target": y})
    # the layer explains its own output: W X + b in the moments' language
    close(found.target, np.einsum("goi,gi->go", weights, found.input) + found.weight * bias)
    close(found.cross, weights @ found.gram.total + bias[:, :, None] * found.input[:, None, :])
    assert found.weight == 8 * 9


@pytest.mark.parametrize("count", [40, 2])  # a gram, and samples
def test_moments_of_a_shared_weight_are_those_of_all_its_uses(count):
    text = (
        "net (float[n,5] x) => (float[n,5] y) { [one] h = Gemm(x, w, b) r = Tanh(h) [two] y = Gemm(r, w, b) }"
    )
    model = parsed(text, {"w": (5, 5), "b": (5,)})
    (layer,) = find_layers(model.graph)
    x = samples((5,), count)
    known = collect(model, "", data_for(model, x), Gathering(gradients=False)).layers["one"]
    assert isinstance(known.activations, Samples if count == 2 else Gram)
    w, b = array(model, "w").astype(np.float64), array(model, "b").astype(np.float64)
    rows = np.concatenate([x, np.tanh(x @ w + b)]).astype(np.float64)
    wanted = rows @ w + b
    found = moments_of_all_uses(layer, known)
    assert found.weight == 2 * count
    if count == 2:
        np.testing.assert_array_equal(found.rows[0], known.activations.rows[0, :, :-1])
        close(found.targets[0], found.rows[0] @ w + b)
        return
    close(found.gram.mean()[0], rows.T @ rows / len(rows))
    close(found.cross[0], wanted.T @ rows)
    close(found.input[0], rows.sum(0))
    close(found.target[0], wanted.sum(0))
    close(found.square[0], (wanted**2).sum(0))


# -- the ridge
# --------------------------------------------------------------------------------------------------


def linear(rows, noise, seed, weights):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, rows, weights.shape[2]))
    t = x @ weights.transpose(0, 2, 1) + noise * rng.standard_normal((1, rows, weights.shape[1]))
    return Moments(
        Gram(x.transpose(0, 2, 1) @ x, rows),
        t.transpose(0, 2, 1) @ x,
        x.sum(1),
        t.sum(1),
        (t**2).sum(1),
        rows,
    )


WEIGHTS = np.random.default_rng(0).standard_normal((1, 3, 30))
EVERY = np.ones(WEIGHTS.shape, bool)


def test_noise_on_few_rows_calls_for_a_strong_ridge():
    fit, held = linear(36, 5.0, 1, WEIGHTS), linear(36, 5.0, 2, WEIGHTS)
    assert ridge((fit, held), WEIGHTS, WEIGHTS, EVERY, (), True) > RIDGE


def test_targets_that_inputs_explain_call_for_none():
    """The reference is far from what explains the targets: pulling to it would only hurt."""
    fit, held = linear(200, 0.0, 1, WEIGHTS), linear(200, 0.0, 2, WEIGHTS)
    assert ridge((fit, held), np.zeros_like(WEIGHTS), np.zeros_like(WEIGHTS), EVERY, (), True) == RIDGE


def test_with_rows_in_plenty_or_none_held_back_it_is_the_smallest():
    fit, held = linear(30 * 21, 50.0, 1, WEIGHTS), linear(36, 50.0, 2, WEIGHTS)
    assert ridge((fit, held), WEIGHTS, WEIGHTS, EVERY, (), True) == RIDGE
    assert ridge((linear(36, 50.0, 1, WEIGHTS), None), WEIGHTS, WEIGHTS, EVERY, (), True) == RIDGE
