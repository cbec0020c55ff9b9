"""What a teacher says is asked for once, and only where a sample has the same answer in any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from units.nets import parsed

from onnxprune.data import Data, open_data
from onnxprune.finetune import answers, train
from onnxprune.finetune.answers import Answers, ask
from onnxprune.finetune.batches import epoch_batches, share_of
from onnxprune.finetune.distributed import Processes
from onnxprune.finetune.networks import Networks
from onnxprune.finetune.preparation import make_networks
from onnxprune.model import Model, load
from onnxprune.options import Training
from onnxprune.progress import Silent

from .conftest import Lesson

ROWS = "net (float[n,3] x) => (float[n,2] y, float[n,3] r) { y = MatMul(x, w)  r = Relu(x) }"
BY_BATCH = """net (float[n,3] x) => (float[n,2] y) {
    mean = ReduceMean<keepdims=1>(x, axes)  z = Sub(x, mean)  y = MatMul(z, w)
}"""
DRAWN = """net (float[n,3] x) => (float[n,2] y) {
    noise = RandomNormalLike(x)  z = Add(x, noise)  y = MatMul(z, w)
}"""
TURNED = "net (float[n,3] x) => (float[2,n] y) { z = MatMul(x, w)  y = Transpose<perm=[1,0]>(z) }"
MIXED = "net (float[4,3] x) => (float[4,3] y) { y = MatMul(w, x) }"  # every row is of all samples


def asked(
    text: str, shape: tuple[int, ...] = (3, 2), feeds: Any = None, processes: int = 1, **options: Any
) -> tuple[Answers | None, Networks, Data]:
    model = load(parsed(text, {"w": shape}, **({"axes": np.array([0])} if text == BY_BATCH else {})))
    if feeds is None:
        feeds = {"x": np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)}
    chosen, here = Training(batch_size=8, **options), Processes(0, processes, torch.device("cpu"))
    data = open_data(feeds, model.graph.inputs, batch_size=8)
    networks = make_networks(model, model, data, chosen, here)
    return ask(networks, data, chosen, here, Silent()), networks, data


def test_every_batch_gets_the_answers_to_its_samples() -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((n, t, 3)).astype(np.float32)} for n, t in ((11, 2), (9, 4))]
    text = "net (float[n,t,3] x) => (float[n,t,2] y, float[n,t,3] r) { y = MatMul(x, w)  r = Relu(x) }"
    found, networks, data = asked(text, feeds=feeds)
    assert found is not None
    seen = 0
    for chunk, batch in epoch_batches(data, seed=1, epoch=2):
        wanted = networks.targets([torch.tensor(batch.feeds["x"])])
        for one, other in zip(found.of(chunk), wanted, strict=True):
            torch.testing.assert_close(one, other)  # rows of other batches: rounding
        seen += batch.count
    assert seen == data.count == 20


@pytest.mark.parametrize("text", [BY_BATCH, DRAWN, TURNED])
def test_answers_that_depend_on_the_batch_are_asked_for_anew(text: str) -> None:
    assert asked(text)[0] is None


def test_answers_of_several_samples_in_a_row_are_asked_for_anew() -> None:
    assert asked(MIXED, (4, 4))[0] is None


def test_answers_to_images_that_move_are_asked_for_anew() -> None:
    text = "net (float[n,1,2,3] x) => (float[n,6] y) { y = Flatten(x) z = Relu(y) v = MatMul(z, w) }"
    text = text.replace("y) {", "v) {").replace("float[n,6]", "float[n,2]")
    feeds = {"x": np.random.default_rng(0).standard_normal((20, 1, 2, 3)).astype(np.float32)}
    assert asked(text, (6, 2), feeds)[0] is not None
    assert asked(text, (6, 2), feeds, shift=1)[0] is None
    assert asked(text, (6, 2), feeds, mirror=True)[0] is None


def test_more_answers_than_may_be_kept_are_not_begun_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MOST", 20 * 5 * 4 - 1)  # 20 samples of 2 + 3 float32
    assert asked(ROWS)[0] is None
    monkeypatch.setattr(answers, "_MOST", 20 * 5 * 4)
    assert asked(ROWS)[0] is not None


def test_one_epoch_asks_as_it_goes() -> None:
    assert asked(ROWS, epochs=1)[0] is None
    assert asked(ROWS, epochs=3, processes=4)[0] is None


def test_processes_take_the_answers_to_their_samples(lesson: Lesson) -> None:
    """Those that `share_of` gives them of a batch, also where there are fewer samples than processes."""
    model = load(lesson.dense)
    data = open_data(lesson.data, model.graph.inputs, batch_size=4)
    for chunk, batch in epoch_batches(data, seed=0, epoch=0):
        for rank in range(3):
            share = share_of(batch, data, rank, 3, torch.device("cpu"))
            x = data.parts[0].arrays["x"][data.parts[0].rows[chunk.shared(rank, 3).places]]
            np.testing.assert_array_equal(share.inputs[0].numpy(), x)


def test_a_network_learns_the_same_from_answers_that_were_kept(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    plain = Networks.targets

    def counted(networks: Networks, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        calls.append(len(inputs[0]))
        return plain(networks, inputs)

    monkeypatch.setattr(Networks, "targets", counted)
    given: dict[str, Any] = {
        "teacher": lesson.dense,
        "epochs": 6,
        "batch_size": 32,
        "evaluation": lesson.test,
    }
    kept = train(lesson.pruned, lesson.data, **given)
    asked_once = len(calls)
    monkeypatch.setattr(answers, "_MOST", 0)
    anew = train(lesson.pruned, lesson.data, **given)
    assert asked_once < 10 < 30 < len(calls) - asked_once  # 150 samples are five batches
    for one, other in zip(_weights(kept.model), _weights(anew.model), strict=True):
        # Adam divides by the root of squared gradients: rounding of small ones is not small
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def _weights(model: Model) -> list[np.ndarray]:
    from onnxprune.finetune import to_module

    module: nn.Module = to_module(model)
    return [weight.detach().numpy() for weight in module.parameters()]
