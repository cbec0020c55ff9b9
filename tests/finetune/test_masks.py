"""Masks: a pruned weight stays zero under any optimizer, in a loop that knows nothing of masks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tiny import TWINS, samples, twin_model
from torch import nn
from units.nets import array, parsed, put, run

from onnxprune.errors import ModelError
from onnxprune.finetune import from_module, to_module
from onnxprune.model import load
from onnxprune.passes.pack import pack

from .test_module import NAMES, linear


class Noisy(torch.optim.Optimizer):
    """Moves every entry at random, whatever its gradient."""

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=group["lr"])


OPTIMIZERS = {
    "momentum and decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "noise": lambda p: Noisy(p, 0.01),
}


def pruned(name: str = "cnn", keep: float = 0.4) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A twin with most entries of its weights zero, and where they are not."""
    model, kept, rng = twin_model(name), {}, np.random.default_rng(1)
    for key, shape in TWINS[name].weights.items():
        if len(shape) > 1:
            kept[key] = rng.random(shape) < keep
            put(model, key, np.where(kept[key], array(model, key), np.float32(0)))
    return model, kept


def train(module: nn.Module, optimizer: torch.optim.Optimizer, name: str = "cnn", steps: int = 6) -> None:
    """A loop as anybody writes it."""
    x, generator = torch.from_numpy(samples(TWINS[name].shape, 8)), torch.Generator().manual_seed(2)
    target = torch.randint(0, 3, (8,), generator=generator)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), target).backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("name", ["cnn", "tokens"])
def test_pruned_weights_stay_zero_and_the_others_move(
    name: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    model, kept = pruned(name)
    module = to_module(model)
    train(module, make(module.parameters()), name)
    tuned = from_module(module, model)
    for key, mask in kept.items():
        assert not array(tuned, key)[~mask].any()
        assert (array(tuned, key)[mask] != array(model, key)[mask]).mean() > 0.25  # some see no gradient
    x = samples(TWINS[name].shape, 8)
    found, want = module(torch.from_numpy(x)).detach().numpy(), run(tuned, {"x": x})["y"]
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())  # float32 sums, reordered


def test_masks_of_weights_of_any_name() -> None:
    half = np.triu(np.ones((3, 3), np.float32))
    names = [name for name in NAMES if name != "x"]
    model = linear(**{name: half * (1 + number) for number, name in enumerate(names)})
    module = to_module(model)
    assert sorted(name for name, _ in module.named_parameters()) == sorted(names)
    optimizer = torch.optim.SGD(module.parameters(), 1e-40, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        module(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    tuned = from_module(module, model)
    assert all(np.array_equal(array(tuned, name) != 0, half != 0) for name in names)


def test_momentum_from_before_the_mask_does_not_revive_a_weight() -> None:
    """The state of an optimizer outlives the mask it was gathered without."""
    model, kept = pruned()
    dense, module = to_module(model, masks="none"), to_module(model)
    optimizer = torch.optim.SGD(dense.parameters(), 0.1, momentum=0.9)
    train(dense, optimizer)
    later = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    later.load_state_dict(optimizer.state_dict())
    train(module, later)
    assert all(not array(from_module(module, model), key)[~mask].any() for key, mask in kept.items())


def test_without_masks_zeros_are_trained() -> None:
    model, kept = pruned()
    module = to_module(model, masks="none")
    train(module, torch.optim.SGD(module.parameters(), 0.1))
    tuned = from_module(module, model)
    assert all(array(tuned, key)[~mask].any() for key, mask in kept.items())


def test_biases_of_zero_are_free() -> None:
    model = twin_model("cnn")
    put(model, "b1", np.zeros(4, np.float32))
    module = to_module(model)
    train(module, torch.optim.SGD(module.parameters(), 0.1))
    assert array(from_module(module, model), "b1").any()


def test_masks_given_prune_what_was_dense() -> None:
    model = twin_model("cnn")
    mask = np.random.default_rng(0).random((6, 4, 1, 1)) < 0.5
    module = to_module(model, masks={"k4": mask})
    weight = array(from_module(module, model), "k4")
    np.testing.assert_array_equal(weight, np.where(mask, array(model, "k4"), 0))
    train(module, torch.optim.AdamW(module.parameters(), 0.01))
    assert not array(from_module(module, model), "k4")[~mask].any()


def test_a_mask_survives_copies_and_saved_states(tmp_path) -> None:
    model, kept = pruned()
    module = to_module(model)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    fresh = to_module(model)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for twin in (copy.deepcopy(module), fresh):
        train(twin, torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9))
        assert all(not array(from_module(twin, model), key)[~mask].any() for key, mask in kept.items())


def test_a_gradient_that_is_not_a_number_stops_at_the_mask() -> None:
    """Zero times NaN is NaN: a mask that multiplies would let it through."""
    model, _ = pruned("mlp")
    module = to_module(model)
    (module(torch.full((2, 7), float("nan")))).sum().backward()
    weight = dict(module.named_parameters())["w1"]
    assert not weight.grad[weight == 0].any()


def test_a_packed_model_keeps_its_zeros_through_loading() -> None:
    model = parsed("net (float[n,50] x) => (float[n,40] y) { y = MatMul(x, w) }", {"w": (50, 40)})
    kept = np.random.default_rng(1).random((50, 40)) < 0.1
    put(model, "w", np.where(kept, array(model, "w"), np.float32(0)))
    packed = model.clone()
    assert pack(packed).packed
    module = to_module(load(packed))
    assert [name for name, _ in module.named_parameters()] == ["w"]
    np.testing.assert_array_equal(dict(module.named_buffers())["w:mask"].numpy(), kept)


@pytest.mark.parametrize(
    ("masks", "word"),
    [
        ({"nowhere": np.ones(3)}, "'nowhere'.*no weight"),
        ({"k1": np.ones((4, 3))}, r"'k1'.*\[4, 3\].*\[4, 3, 3, 3\]"),
    ],
)
def test_masks_that_do_not_fit(masks: dict[str, np.ndarray], word: str) -> None:
    with pytest.raises(ModelError, match=word):
        to_module(twin_model("cnn"), masks=masks)
