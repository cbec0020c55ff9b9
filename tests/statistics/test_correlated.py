"""Statistics whose grams come by correlation are those whose grams come from patches."""

import numpy as np
import pytest
from tiny import data_for, relative, samples, twin_model
from units.nets import parsed

from onnxprune.grams import Choice, Correlation
from onnxprune.statistics import Gathering, collect
from onnxprune.statistics.graph import build

FLOAT32 = 1e-6  # sums of a few thousand float32 products, in another order

SHARED = """net (float[n,2,6,5] x) => (float[n,2,6,5] y) {
    [first] h = Conv<pads=[1,0,1,2]>(x, w, b)
    a = Tanh(h)
    [again] y = Conv<pads=[1,0,1,2]>(a, w, b)
}"""
HALF = "net (float16[n,2,6,5] x) => (float16[n,3,4,3] y) { [one] y = Conv(x, w) }"


def half():
    rng = np.random.default_rng(0)
    return parsed(HALF, w=rng.standard_normal((3, 2, 3, 3)).astype(np.float16))


MODELS = {
    "cnn": (lambda: twin_model("cnn"), (3, 9, 8), {"grouped", "depthwise"}),
    "shared": (lambda: parsed(SHARED, {"w": (2, 2, 3, 3), "b": (2,)}), (2, 6, 5), {"first"}),
    "half": (half, (2, 6, 5), {"one"}),
}


def forced(monkeypatch, way):
    monkeypatch.setattr(
        "onnxprune.statistics.graph.choose",
        lambda sliding, batch: Choice(way, {}, Correlation(sliding)),
    )


@pytest.mark.parametrize("average", ["mean", "exponential"])
@pytest.mark.parametrize("name", MODELS)
def test_both_ways_give_the_same_statistics(monkeypatch, name, average):
    make, shape, layers = MODELS[name]
    model = make()
    x = 100 * samples(shape, 11) if name == "half" else samples(shape, 11)  # squares beyond float16
    data = data_for(model, x.astype(np.float16) if name == "half" else x)
    found = {}
    for way in ("direct", "correlation"):
        forced(monkeypatch, way)
        graph = build(model, loss="gaussian", gradients=False)
        assert set(graph.correlations) >= (layers if way == "correlation" else set())
        assert bool(graph.correlations) == (way == "correlation")
        found[way] = collect(model, "", data, Gathering(gradients=False, average=average)).layers
    for layer, direct in found["direct"].items():
        other = found["correlation"][layer]
        assert (other.rows, other.samples, other.activations.weight) == (
            direct.rows,
            direct.samples,
            direct.activations.weight,
        )
        assert relative(other.activations.mean(), direct.activations.mean()) < FLOAT32
        assert relative(other.mean(), direct.mean()) < 10 * FLOAT32  # terms of either sign cancel


def test_correlation_is_chosen_by_cost_and_never_for_rows():
    text = """net (float[n,16,24,24] x) => (float[n,8,22,22] y) {
        [large] h = Conv<pads=[1,1,1,1]>(x, w) [last] y = Conv(h, v)
    }"""
    model = parsed(text, {"w": (16, 16, 3, 3), "v": (8, 16, 3, 3)})

    def chosen(**given):
        return set(build(model, loss="auto", gradients=False, **given).correlations)

    assert chosen() == {"large", "last"}
    assert chosen(sampled={"last"}) == {"large"}
    assert chosen(positions=10) == set()
    assert chosen(positions=22 * 22) == {"last"}  # which has no more
