"""First-order sums of units against torch autograd, sample by sample."""

import numpy as np
import pytest
import torch
from tiny import TWINS, Seen, data_for, relative, samples, twin_model
from units.nets import parsed

from onnxprune.layers import find_layers
from onnxprune.saliency.units import first_order
from onnxprune.statistics import FirstOrder, Gathering, Site, collect_first_order

HOW = Gathering(provider="cpu")
# Site and, in the twin, its weight as [outputs, inputs, …]
READERS = {
    "mlp": [("one", 1, "w1", False), ("two", 1, "w2", True)],
    "cnn": [("strided", 1, "k1", False), ("pointwise", 1, "k4", False), ("head", 1, "w5", True)],
    "tokens": [("query", 2, "wq", True), ("up", 2, "w1", True), ("head", 1, "wo", True)],
}


def by_torch(name, x, labels, weights):
    """Of each sample: W ∘ ∂L/∂W by weight, ∂L/∂s and the features by layer, float64."""
    runs = []
    for row, label in zip(x, labels, strict=True):
        tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in weights.items()}
        for tensor in tensors.values():
            tensor.requires_grad_(tensor.is_floating_point())
        seen = Seen()
        logits = TWINS[name].forward(seen, torch.tensor(row[None], dtype=torch.float64), tensors)
        torch.nn.functional.cross_entropy(logits, torch.tensor([label]), reduction="sum").backward()
        runs.append((tensors, seen))
    return runs


@pytest.mark.parametrize("name", READERS)
def test_sums_are_those_of_autograd(name):
    model = twin_model(name)
    rng = np.random.default_rng(1)
    for layer in find_layers(model.graph):  # so that no softmax saturates
        matrix, bias = layer.read()
        layer.write(matrix / np.sqrt(layer.d_in), bias)
    weights = {
        key: value.const_value.numpy() for key, value in model.graph.initializers.items() if key != "axes"
    }
    x, labels = samples(TWINS[name].shape, 10), rng.integers(0, 3, 10)
    data = data_for(model, {"x": x, "labels": labels}, 4)
    sites = [Site(layer, "input", axis) for layer, axis, _, _ in READERS[name]]
    found = collect_first_order(model, data, sites, HOW)
    assert "true labels" in found.loss and not found.blocked
    runs = by_torch(name, x, labels, weights)
    for site, (layer, _, weight, transposed) in zip(sites, READERS[name], strict=True):
        products, gradients, features = [], [], []
        for tensors, seen in runs:
            matrix, slope = tensors[weight].detach(), tensors[weight].grad
            both = (matrix * slope).numpy()
            both = both.T if transposed else both
            # scaling an input channel and scaling the weights that read it change L alike
            products.append(both.reshape(both.shape[0], both.shape[1], -1).sum((0, 2)))
            upright = (matrix.T if transposed else matrix).numpy()
            if upright.ndim == 2 or upright.shape[2:] == (1, 1):
                scale = 0.5 if layer == "two" else 1.0  # Gemm's alpha
                flat = scale * upright.reshape(upright.shape[:2])
                gradients.append(seen.gradients(layer)[0].numpy().sum(0) @ flat)
                features.append(seen.features[layer][0].numpy().mean(0))
        # float32 graph against float64 torch
        assert relative(found.of[site].products, np.stack(products)) < 1e-4
        if gradients:
            assert relative(found.of[site].gradients, np.stack(gradients)) < 1e-4
            assert relative(found.of[site].mean, np.mean(features, axis=0)) < 1e-5


def test_a_value_with_two_readers_has_a_gradient_for_each():
    """The derivative by the value itself would count both readers at both of them."""
    model = parsed(
        """net (float[n,4] x) => (float[n,3] y) {
            [make] h = Gemm(x, w0)
            [left] l = Gemm(h, w1)
            [right] r = Gemm(h, w2)
            y = Add(l, r)
        }""",
        {"w0": (4, 5), "w1": (5, 3), "w2": (5, 3)},
    )
    x, labels = samples((4,), 6), np.arange(6) % 3
    data = data_for(model, {"x": x, "labels": labels}, 4)
    made = Site("make", "output", 1)
    sites = [Site("left", "input", 1), Site("right", "input", 1), made]
    found = collect_first_order(model, data, sites, HOW).of
    left, right, both = (found[site].products for site in sites)
    assert relative(left + right, both) < 1e-5
    assert relative(left, both) > 0.1


def test_without_labels_they_are_sampled_from_the_model():
    model = twin_model("mlp")
    data = data_for(model, samples((7,), 8))
    site = Site("two", "input", 1)
    found = collect_first_order(model, data, [site], HOW)
    again = collect_first_order(model, data, [site], HOW)
    assert "sampled" in found.loss
    np.testing.assert_array_equal(found.of[site].products, again.of[site].products)


def test_the_four_scores_are_the_papers():
    rng = np.random.default_rng(2)
    samples_, positions, units = 7, 5, 3
    a, g = rng.normal(size=(2, samples_, positions, units))
    sums = FirstOrder((a * g).sum(1), g.sum(1), a.mean((0, 1)))
    places = np.arange(units)[:, None]
    mean = a.mean((0, 1))
    want = {
        "rs": (-a * g).sum(1).mean(0),
        "abs_rs": np.abs((-a * g).sum(1)).mean(0),
        "mrs": ((mean - a) * g).sum(1).mean(0),
        "abs_mrs": np.abs(((mean - a) * g).sum(1)).mean(0),
    }
    for name, scores in want.items():
        np.testing.assert_allclose(first_order(name, [(places, sums)]), scores, rtol=1e-12)
