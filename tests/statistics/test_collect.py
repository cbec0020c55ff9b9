"""Gathered statistics against torch with the same sampled labels and against the exact Fisher; failures."""

import numpy as np
import pytest
import torch
from tiny import TWINS, Seen, data_for, relative, samples, twin_model
from units.nets import array, parsed

from onnxprune.errors import StatisticsError
from onnxprune.layers import find_layers
from onnxprune.statistics import Gathering, Gram, Samples, collect
from onnxprune.statistics.totals import DECAY

FLOAT32 = 1e-5  # the bound; sums of some thousand float32 products are good to about 1e-6


def torch_factors(name, model, x, batch_size, seed, loss="cross-entropy"):
    """By layer the sums of ā āᵀ and g gᵀ and the rows, in double, one batch after another."""
    twin = TWINS[name]
    weights = {
        key: torch.tensor(array(model, key).astype(np.float64), requires_grad=True) for key in twin.weights
    }
    sums = {}
    for number, start in enumerate(range(0, len(x), batch_size)):
        seen = Seen()
        y = twin.forward(seen, torch.tensor(x[start : start + batch_size].astype(np.float64)), weights)
        rng = np.random.default_rng([seed, number])
        if loss == "cross-entropy":
            noise = rng.gumbel(size=tuple(y.shape)).astype(np.float32)
            label = (y.detach() + torch.tensor(noise)).argmax(1)
            torch.nn.functional.cross_entropy(y, label, reduction="sum").backward()
        else:
            noise = rng.normal(size=tuple(y.shape)).astype(np.float32)
            (0.5 * (y - (y.detach() + torch.tensor(noise))) ** 2).sum().backward()
        for layer, features in seen.features.items():
            a = torch.cat([features, torch.ones(*features.shape[:2], 1)], 2)
            g = seen.gradients(layer)
            new = (a.transpose(1, 2) @ a, g.transpose(1, 2) @ g, a.shape[1])
            old = sums.get(layer, (0, 0, 0))
            sums[layer] = tuple(b + c for b, c in zip(old, new, strict=True))
    return {layer: (a.numpy(), g.numpy(), rows) for layer, (a, g, rows) in sums.items()}


@pytest.mark.parametrize("loss", ["cross-entropy", "gaussian"])
@pytest.mark.parametrize("name", TWINS)
def test_factors_equal_torch_with_the_same_samples(name, loss):
    model, x = twin_model(name), samples(TWINS[name].shape, 30)
    found = collect(model, "sha", data_for(model, x, 8), Gathering(seed=5, loss=loss))
    want = torch_factors(name, model, x, 8, 5, loss)
    assert list(found.layers) == [layer.name for layer in find_layers(model.graph)]
    assert set(found.layers) == set(want) and len(want) == TWINS[name].layers
    assert found.samples == 30 and not found.blocked
    for layer, (a, g, rows) in want.items():
        known = found.layers[layer]
        assert known.rows == rows and known.positions == rows / 30
        assert relative(known.activations.mean(), a / rows) < FLOAT32
        assert relative(known.gradients.mean(), g / rows) < FLOAT32
        assert relative(known.mean(), a[:, :-1, -1] / rows) < FLOAT32


def test_a_layer_wider_than_its_rows_keeps_the_samples():
    model, x = twin_model("mlp"), samples((7,), 6)
    known = collect(model, "", data_for(model, x), Gathering(seed=1)).layers
    want = torch_factors("mlp", model, x, 4, 1)
    assert isinstance(known["one"].activations, Samples) and isinstance(known["two"].activations, Samples)
    for layer, (a, g, rows) in want.items():
        assert relative(known[layer].activations.mean(), a / rows) < FLOAT32
        assert relative(known[layer].gradients.mean(), g / rows) < FLOAT32
        assert relative(known[layer].mean(), a[:, :-1, -1] / rows) < FLOAT32


def test_uses_of_a_shared_weight_count_as_positions():
    text = """net (float[n,4] x) => (float[n,4] y) {
        [first] h = Gemm(x, w, b)
        a = Relu(h)
        [again] y = Gemm(a, w, b)
    }"""
    model = parsed(text, {"w": (4, 4), "b": (4,)})
    x = samples((4,), 12)
    known = collect(model, "", data_for(model, x), Gathering(gradients=False)).layers
    w, b = array(model, "w").astype(np.float64), array(model, "b").astype(np.float64)
    rows = np.concatenate([x, np.maximum(x @ w + b, 0)])
    ones = np.concatenate([rows, np.ones((24, 1))], axis=1)
    assert list(known) == ["first"] and known["first"].rows == 24 and known["first"].positions == 2
    assert relative(known["first"].activations.mean()[0], ones.T @ ones / 24) < FLOAT32


# -- the Fisher
# -------------------------------------------------------------------------------------------------

REGRESSION = "net (float[n,5] x) => (float[n,3] y) { [only] y = Gemm<transB=1>(x, w, b) }"


def test_kronecker_product_is_the_exact_fisher_of_softmax_regression_on_one_sample():
    model, x = parsed(REGRESSION, {"w": (3, 5), "b": (3,)}), samples((5,), 1)
    w, b = (torch.tensor(array(model, name).astype(np.float64), requires_grad=True) for name in "wb")
    log_p = torch.log_softmax(torch.tensor(x.astype(np.float64)) @ w.T + b, 1)[0]
    p = log_p.detach().exp().numpy()
    fisher, kronecker = np.zeros((18, 18)), np.zeros((18, 18))
    for label in range(3):  # every label, by its probability, instead of sampling
        dw, db = torch.autograd.grad(log_p[label], (w, b), retain_graph=True)
        score = torch.cat([dw, db[:, None]], 1).reshape(-1).numpy()
        fisher += p[label] * np.outer(score, score)
        data = data_for(model, {"x": x, "labels": np.array([label])})
        known = collect(model, "", data, Gathering(labels=True)).layers["only"]
        kronecker += p[label] * np.kron(known.gradients.mean()[0], known.activations.mean()[0])
    assert relative(kronecker, fisher) < FLOAT32


def test_labels_are_sampled_from_the_softmax():
    model = parsed(REGRESSION, {"w": (3, 5), "b": (3,)})
    x, count = samples((5,), 1), 40_000
    z = x @ array(model, "w").T + array(model, "b")
    p = (np.exp(z) / np.exp(z).sum())[0]
    data = data_for(model, np.repeat(x, count, 0), count)
    known = collect(model, "", data, Gathering()).layers["only"]
    want = np.diag(p) - np.outer(p, p)
    # an entry is a mean of `count` products of numbers of magnitude ≤ 1: 5 standard deviations are 5/√count
    assert np.abs(known.gradients.mean()[0] - want).max() < 5 / np.sqrt(count)


# -- streams, seeds, averages
# -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_sums_and_another_seed_others():
    model, x = twin_model("cnn"), samples((3, 9, 8), 9)
    one, same, other = (
        collect(model, "", data_for(model, x), Gathering(seed=seed)).layers["head"] for seed in (3, 3, 4)
    )
    assert (one.gradients.total == same.gradients.total).all()
    assert not np.allclose(one.gradients.total, other.gradients.total)
    np.testing.assert_array_equal(one.activations.mean(), other.activations.mean())


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_the_batch_size_changes_no_sum_but_by_rounding(batch_size):
    model, x = twin_model("tokens"), samples((5, 6), 24)
    labels = np.arange(24) % 3
    how = Gathering(labels=True)
    whole = collect(model, "", data_for(model, {"x": x, "labels": labels}, 24), how)
    parts = collect(model, "", data_for(model, {"x": x, "labels": labels}, batch_size), how)
    for name, layer in whole.layers.items():
        # float32 within a batch, in another order
        assert relative(parts.layers[name].activations.mean(), layer.activations.mean()) < 1e-6
        assert relative(parts.layers[name].gradients.mean(), layer.gradients.mean()) < FLOAT32


@pytest.mark.parametrize("count", [12, 6])  # grams, and samples
def test_exponential_average_decays_batch_means(count):
    model, x = twin_model("mlp"), samples((7,), count)
    how = Gathering(average="exponential", labels=True)
    labels = np.arange(count) % 4
    found = collect(model, "", data_for(model, {"x": x, "labels": labels}, 4), how)
    batches = [
        collect(
            model,
            "",
            data_for(model, {"x": x[i : i + 4], "labels": labels[i : i + 4]}, 4),
            Gathering(labels=True),
        )
        for i in range(0, count, 4)
    ]
    for name, layer in found.layers.items():
        a = batches[0].layers[name].activations.mean()
        g = batches[0].layers[name].gradients.mean()
        for batch in batches[1:]:
            a = DECAY * a + (1 - DECAY) * batch.layers[name].activations.mean()
            g = DECAY * g + (1 - DECAY) * batch.layers[name].gradients.mean()
        assert isinstance(layer.activations, Samples if count == 6 else Gram)
        assert relative(layer.activations.mean(), a) < 1e-6  # float32 rows, scaled
        assert relative(layer.gradients.mean(), g) < 1e-6
        # the mean of the features is A's last column in either form
        assert relative(layer.mean(), a[:, :-1, -1]) < 1e-6
        assert layer.rows == count


def test_only_the_layers_asked_for():
    model = twin_model("tokens")
    found = collect(model, "", data_for(model, samples((5, 6), 4)), Gathering(), only=["up", "query"])
    assert list(found.layers) == ["query", "up"]


def test_without_gradients_there_is_no_g():
    model = twin_model("mlp")
    found = collect(model, "", data_for(model, samples((7,), 12)), Gathering(gradients=False))
    assert found.loss == "none" and all(layer.gradients is None for layer in found.layers.values())


def test_a_layer_no_gradient_reaches_is_blocked_by_name():
    text = """net (float[n,4] x) => (float[n,2] y) {
        [cut] h = Gemm(x, w1)
        r = Round(h)
        [open] y = Gemm(r, w2)
    }"""
    model = parsed(text, {"w1": (4, 4), "w2": (4, 2)})
    found = collect(model, "", data_for(model, samples((4,), 12)))
    assert set(found.blocked) == {"cut"} and found.layers["cut"].gradients is None
    assert found.layers["open"].gradients is not None


def test_overflow_names_the_layer():
    model = twin_model("mlp")
    data = data_for(model, np.full((12, 7), 1e30, np.float32))
    with pytest.raises(StatisticsError, match=r"layer 'one' \(Gemm\).*NaN or Inf"):
        collect(model, "", data, Gathering(gradients=False))
