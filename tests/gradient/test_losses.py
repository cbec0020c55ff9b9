"""Losses: what is recognised, that samples follow the model's distribution, that seeds are its gradient."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F

from onnxprune.emit import Emitter
from onnxprune.errors import GradientError, UsageError
from onnxprune.gradient import LossHead, attach_loss
from onnxprune.gradient.losses import Loss
from onnxprune.session import Session

from .cases import Array

FLOAT, INT = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)
Step = tuple[str, dict[str, object], tuple[int | str, ...]]


def chain(*steps: Step, shape: tuple[int | str, ...] = ("n", 4), type: ir.TensorType = FLOAT) -> ir.Model:
    """From z through the steps in turn; a step is an op, its attributes, and the shape it gives."""
    value = ir.Value(name="z", shape=ir.Shape(shape), type=type)
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="g")
    op = Emitter(graph, "net")
    for name, attributes, after in (("Identity", {}, shape), *steps):
        extra = {"Reshape": [op.ints(0, -1)], "Squeeze": [op.ints(2, 3)]}.get(name, [])
        value = getattr(op, name)(value, *extra, **attributes)
        value.shape, value.type = ir.Shape(after), type
    graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)


def seeded(model: ir.Model, loss: Loss = "auto", labels: bool = False) -> tuple[LossHead, Session]:
    """The head, and a session whose outputs are the loss and the seeds, in their order."""
    head = attach_loss(model, Emitter(model.graph), loss, labels)
    model.graph.outputs[:] = [head.loss, *head.seeds.values()]
    return head, Session(model, "cpu")


def noise(head: LossHead, seed: int, *shape: int) -> dict[str, Array]:
    return head.draw(np.random.default_rng(seed), {n.name: shape for n in head.noise})


SOFTMAX: Step = ("Softmax", {}, ("n", 4))
RECOGNISED = {
    "logits": chain(),
    "softmax": chain(SOFTMAX),
    "log-softmax": chain(("LogSoftmax", {"axis": 1}, ("n", 4))),
    "identity": chain(SOFTMAX, ("Identity", {}, ("n", 4))),
    "reshape": chain(SOFTMAX, ("Reshape", {}, ("n", 4)), ("Transpose", {"perm": [1, 0]}, (4, "n"))),
    "map": chain(("Softmax", {"axis": 1}, ("n", 4, 1, 1)), ("Squeeze", {}, ("n", 4)), shape=("n", 4, 1, 1)),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_classifier_is_recognised_and_its_softmax_cut(name: str) -> None:
    model = RECOGNISED[name].clone()
    head, session = seeded(model)
    assert head.kind == "cross-entropy"
    (z,) = head.seeds
    assert z.name.startswith("net/Identity_")
    shape = (3, 4, 1, 1) if name == "map" else (3, 4)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    loss, seed = session.run({"z": values} | noise(head, 1, *shape)).values()
    onehot = torch.softmax(torch.tensor(values), 1).numpy() - seed
    assert np.sort(onehot.reshape(3, 4), axis=1) == pytest.approx(np.array([[0, 0, 0, 1.0]] * 3), abs=1e-6)
    right = -np.sum(torch.log_softmax(torch.tensor(values), 1).numpy() * onehot)
    assert loss == pytest.approx(right, rel=1e-5)  # float32


def test_true_labels_give_torchs_gradient() -> None:
    head, session = seeded(chain(SOFTMAX), labels=True)
    assert head.noise == []
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, 3, 1, 1, 2])
    right = F.cross_entropy(z, label, reduction="sum")
    right.backward()
    loss, seed = session.run({"z": z.detach().numpy(), str(head.label): label.numpy()}).values()
    assert loss == pytest.approx(right.item(), rel=1e-5)  # float32
    assert seed == pytest.approx(z.grad.numpy(), abs=1e-6)  # float32


def test_every_position_is_an_observation() -> None:
    """A softmax over the middle axis: one label for each of the others."""
    head, session = seeded(chain(("Softmax", {"axis": 1}, ("n", 4, 6)), shape=("n", 4, 6)))
    values = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    _, seed = session.run({"z": values} | noise(head, 1, 2, 4, 6)).values()
    onehot = torch.softmax(torch.tensor(values), 1).numpy() - seed
    assert onehot.sum(axis=1) == pytest.approx(np.ones((2, 6)), abs=1e-6)  # float32
    assert onehot.max(axis=1) == pytest.approx(np.ones((2, 6)), abs=1e-6)


def test_sampled_labels_follow_the_softmax_and_give_its_fisher() -> None:
    head, session = seeded(chain(SOFTMAX))
    n, z = 200_000, np.array([1.0, 0.0, -1.0, 0.5], dtype=np.float32)
    _, seed = session.run({"z": np.tile(z, (n, 1))} | noise(head, 3, n, 4)).values()
    p = np.exp(z) / np.exp(z).sum()
    frequencies = (p - seed).mean(axis=0)
    # five standard errors of a frequency, which is at most ½/√n
    assert frequencies == pytest.approx(p, abs=2.5 / np.sqrt(n))
    fisher = seed.T.astype(np.float64) @ seed / n
    # entries of g gᵀ lie in [−1, 1], so five standard errors are at most 5/√n
    assert fisher == pytest.approx(np.diag(p) - np.outer(p, p), abs=5 / np.sqrt(n))


def test_sampled_bits_follow_the_sigmoid() -> None:
    head, session = seeded(chain(("Sigmoid", {}, ("n", 1)), shape=("n", 1)), "cross-entropy")
    n, z = 100_000, 0.7
    values = np.full((n, 1), z, dtype=np.float32)
    loss, seed = session.run({"z": values} | noise(head, 2, n, 1)).values()
    p = 1 / (1 + np.exp(-z))
    bits = p - seed
    assert bits.mean() == pytest.approx(p, abs=2.5 / np.sqrt(n))  # five standard errors, as above
    right = F.binary_cross_entropy_with_logits(
        torch.tensor(values), torch.tensor(bits.round()), reduction="sum"
    )
    assert loss == pytest.approx(right.item(), rel=1e-4)  # a float32 sum of 100,000 terms


def test_gaussian_seeds_are_minus_the_noise() -> None:
    head, session = seeded(chain(("Tanh", {}, ("n", 4, 5)), shape=("n", 4, 5)))
    assert head.kind == "gaussian"
    drawn = noise(head, 4, 2, 4, 5)
    loss, seed = session.run({"z": np.zeros((2, 4, 5), np.float32)} | drawn).values()
    (epsilon,) = drawn.values()
    assert np.array_equal(seed, -epsilon)
    assert loss == pytest.approx(0.5 * np.sum(epsilon**2), rel=1e-5)  # float32


def test_noise_is_an_input_and_the_same_noise_gives_the_same_seed() -> None:
    model = chain(SOFTMAX)
    head, session = seeded(model)
    assert head.noise[0].name in [v.name for v in model.graph.inputs]
    assert (head.noise[0].kind, head.noise[0].like) == ("gumbel", next(iter(head.seeds)))
    values = {"z": np.zeros((64, 4), dtype=np.float32)}
    runs = [list(session.run(values | noise(head, seed, 64, 4)).values())[1] for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def two_outputs(second: str) -> ir.Model:
    """softmax(z) under the name "p", and z, tanh(z) or an integer of z."""
    model = chain(("Softmax", {}, ("n", 4)))
    op = Emitter(model.graph, "second")
    z = model.graph.inputs[0]
    value = {"Tanh": lambda: op.Tanh(z), "ArgMax": lambda: op.ArgMax(z, axis=1)}.get(second, lambda: None)()
    if value is None:
        value = model.graph[0].outputs[0]
    else:
        value.shape, value.type = ir.Shape(["n", 4]), INT if second == "ArgMax" else FLOAT
    model.graph.outputs.append(value)
    return model


@pytest.mark.parametrize(
    ("second", "kind", "families"),
    [("logits", "cross-entropy", 1), ("Tanh", "mixed", 2), ("ArgMax", "cross-entropy", 1)],
)
def test_two_outputs(second: str, kind: str, families: int) -> None:
    """Logits beside their softmax count once, integers not at all, anything else is a Gaussian."""
    head, _ = seeded(two_outputs(second))
    assert (head.kind, len(head.seeds)) == (kind, families)


def test_what_takes_no_part_is_said() -> None:
    model = two_outputs("Tanh")
    head, _ = seeded(model, "cross-entropy")
    assert len(head.seeds) == 1
    assert "not in the loss: 'second/Tanh" in head.description


def test_gaussian_on_request_leaves_the_softmax_in_place() -> None:
    model = chain(SOFTMAX)
    head = attach_loss(model, Emitter(model.graph), "gaussian")
    assert list(head.seeds) == [model.graph.outputs[0]]


def test_a_sigmoid_is_not_taken_for_logits() -> None:
    assert seeded(chain(("Sigmoid", {}, ("n", 4))))[0].kind == "gaussian"


def test_labels_need_a_classifier() -> None:
    with pytest.raises(UsageError, match="labels"):
        seeded(chain(("Tanh", {}, ("n", 4, 5)), shape=("n", 4, 5)), labels=True)


def test_cross_entropy_needs_a_classifier() -> None:
    with pytest.raises(UsageError, match="gaussian"):
        seeded(chain(("Tanh", {}, ("n",)), shape=("n",)), "cross-entropy")


def test_integer_outputs_have_no_loss() -> None:
    with pytest.raises(GradientError, match="float"):
        seeded(chain(type=INT))


def test_double_models_get_double_noise() -> None:
    head = attach_loss(model := chain(type=ir.TensorType(ir.DataType.DOUBLE)), Emitter(model.graph))
    (drawn,) = noise(head, 0, 2, 4).values()
    assert drawn.dtype == np.float64
