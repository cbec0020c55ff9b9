"""A whole run: what it learns, keeps and writes, and that a run that was killed goes on as if it were not."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import safetensors
import torch
from units.nets import array, parsed, run

import onnxprune
from onnxprune.data import open_data
from onnxprune.errors import OnnxPruneError, RuntimeUnavailableError, TrainingError, UsageError
from onnxprune.evaluate import evaluate
from onnxprune.finetune import train, training
from onnxprune.finetune.batches import count_batches, epoch_batches, share_of
from onnxprune.finetune.training import rate
from onnxprune.model import load
from onnxprune.options import resolve_training
from onnxprune.progress import Advance, Silent

from .conftest import Lesson

ROOT = Path(__file__).resolve().parents[2]


_SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 32, "learning_rate": 0.01}


def learn(lesson: Lesson, **given: Any) -> Any:
    """A short run on the lesson's files."""
    return train(lesson.pruned, lesson.data, **({"output": lesson.folder / "out.onnx", **_SHORT} | given))


def weights(path: Path) -> dict[str, np.ndarray]:
    model = load(path)
    return {name: array(model, name) for name in ("w1", "b1", "w2", "b2")}


# -- what is learned


@pytest.mark.parametrize("objective", ["labels", "distillation", "both"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_pruned_network_recovers_and_its_zeros_stay(lesson: Lesson, objective: str, optimizer: str) -> None:
    result = learn(
        lesson,
        teacher=None if objective == "labels" else lesson.dense,
        evaluation=lesson.test,
        objective=objective,
        optimizer=optimizer,
        learning_rate=0.01 if optimizer == "adamw" else 0.1,
        weight_decay=0.01,
        epochs=10,
    )
    metric = result.report.metric
    assert metric.name == "top1" and metric.after > metric.before + 0.1
    losses = [row.loss for row in result.report.epochs[1:]]
    assert losses[-1] < 0.7 * losses[0]
    written = weights(lesson.folder / "out.onnx")
    np.testing.assert_array_equal(written["w1"] != 0, lesson.kept)
    measured = evaluate(lesson.folder / "out.onnx", lesson.test)
    assert measured.values["top1"] == metric.after
    assert not (lesson.folder / "out.checkpoint").exists()


def test_distillation_without_labels_lowers_the_distance_of_a_pruned_lenet(
    lenet_300_100: Path,
    mnist_calibration: dict[str, np.ndarray],
    mnist_eval: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    pruned = onnxprune.compress(
        lenet_300_100, mnist_calibration, recipe="magnitude", ratio=0.03, output=tmp_path / "small.onnx"
    )
    images, test = {"input": mnist_calibration["input"]}, {"input": mnist_eval["input"][:500]}
    dense = load(lenet_300_100)
    before = evaluate(pruned.model, test, reference=dense.ir).values["kl"]
    result = train(
        tmp_path / "small.onnx", images, teacher=dense, epochs=5, optimizer="sgd", learning_rate=0.05
    )
    after = evaluate(result.model.ir, test, reference=dense.ir).values["kl"]
    assert after < 0.5 * before
    assert result.report.nonzero <= pruned.report.nonzero_after


def test_the_same_run_twice_is_the_same_file(lesson: Lesson) -> None:
    files = []
    for name in ("one.onnx", "two.onnx"):
        learn(lesson, output=lesson.folder / name)
        files.append((lesson.folder / name).read_bytes())
        torch.rand(7)  # whatever the caller draws in between
    assert files[0] == files[1]
    learn(lesson, output=lesson.folder / "three.onnx", seed=1)
    assert (lesson.folder / "three.onnx").read_bytes() != files[0]


def test_the_caller_s_random_numbers_are_left_alone(lesson: Lesson) -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    learn(lesson, epochs=1)
    assert torch.equal(torch.rand(3), want)


def test_cudnn_repeats_itself_while_training_and_is_as_it_was_afterwards(lesson: Lesson) -> None:
    """Torch's own context manager for this turns cuDNN off unless told not to."""
    cudnn, seen = torch.backends.cudnn, []

    class Look(Silent):
        @contextmanager
        def stage(self, name: str, total: int | None) -> Iterator[Advance]:
            def advance(steps: int, note: str = "") -> None:
                if name == "fine-tuning":
                    seen.append((cudnn.enabled, cudnn.deterministic, cudnn.benchmark))

            yield advance

    before = cudnn.enabled, cudnn.deterministic, cudnn.benchmark
    learn(lesson, epochs=1, progress=Look())
    assert set(seen) == {(before[0], True, False)}
    assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == before


# -- what is kept and written


def test_the_best_epoch_is_kept_even_if_it_is_the_start(lesson: Lesson) -> None:
    result = train(
        lesson.dense,
        lesson.data,
        output=lesson.folder / "out.onnx",
        evaluation=lesson.test,
        learning_rate=1.0,
        epochs=2,
    )
    assert result.report.best == 0 and result.report.metric.after == 1.0
    assert [row.metric < 1 for row in result.report.epochs] == [False, True, True]
    for name, weight in weights(lesson.dense).items():
        np.testing.assert_array_equal(weights(lesson.folder / "out.onnx")[name], weight)


def test_training_that_does_harm_leaves_the_network_as_it_was(lesson: Lesson) -> None:
    """MobileNetV2, taught on 250 photos at too large a rate, fell from 76 to 37 % and was written so."""
    result = learn(lesson, teacher=lesson.dense, learning_rate=10.0, objective="distillation")
    held = [row.metric for row in result.report.epochs]
    assert result.report.best == 0 and result.report.metric.name == "loss held back" and min(held) == held[0]
    assert "135 of" in result.report.data  # a tenth of the 150 was held back
    for name, weight in weights(lesson.pruned).items():
        np.testing.assert_array_equal(weights(lesson.folder / "out.onnx")[name], weight)


def test_a_rate_that_does_harm_is_cut_and_the_network_learns_after_all(lesson: Lesson) -> None:
    report = learn(lesson, learning_rate=100.0, epochs=12).report
    returned = [row.returned for row in report.epochs]
    assert returned[1] and not returned[-1] and report.best not in (None, 0)
    assert report.metric.after < report.metric.before
    assert not any(row.returned for row in learn(lesson).report.epochs)


def test_too_few_samples_to_choose_by_are_said(lesson: Lesson) -> None:
    with np.load(lesson.data) as file:
        few = {name: file[name][:9] for name in file.files}
    report = train(lesson.pruned, few, epochs=1).report
    assert report.best is None and any("too few samples" in words for words in report.warnings)
    assert not train(lesson.pruned, few, epochs=1, holdout=0).report.warnings


def test_without_labels_the_best_is_the_nearest_to_the_teacher(lesson: Lesson) -> None:
    with np.load(lesson.data) as file:
        data = {"x": file["x"]}
    result = learn(lesson, teacher=lesson.dense, evaluation=data)
    assert result.report.metric.name == "agreement" and result.report.best != 0
    assert result.report.metric.after == max(row.metric for row in result.report.epochs)
    assert "distillation" in result.report.objective


def test_the_file_is_the_same_graph_packed_again(lesson: Lesson) -> None:
    learn(lesson, pack="fp32")
    before, after = onnx.load(lesson.pruned), onnx.load(lesson.folder / "out.onnx")
    assert [v.name for v in after.graph.input] == [v.name for v in before.graph.input]
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
    assert "ScatterElements" in [n.op_type for n in after.graph.node]
    entries = {entry.key: entry.value for entry in after.metadata_props}
    assert entries["author"] == "somebody"
    assert json.loads(entries["onnxprune"])["finetuned"]["options"]["epochs"] == 3


def test_what_a_file_says_of_its_compression_stays(lesson: Lesson) -> None:
    onnxprune.compress(
        lesson.dense, lesson.data, ratio=0.5, recipe="magnitude", output=lesson.folder / "half.onnx"
    )
    train(lesson.folder / "half.onnx", lesson.data, output=lesson.folder / "out.onnx", epochs=1)
    entries = {e.key: e.value for e in onnx.load(lesson.folder / "out.onnx").metadata_props}
    record = json.loads(entries["onnxprune"])
    assert record["options"]["ratio"] == 0.5 and record["finetuned"]["options"]["epochs"] == 1


def test_frozen_weights_stay(lesson: Lesson) -> None:
    result = learn(lesson, freeze=("w1", "b*"))
    before, after = weights(lesson.pruned), weights(lesson.folder / "out.onnx")
    assert all(np.array_equal(before[name], after[name]) == (name != "w2") for name in before)
    assert {entry.name for entry in result.report.skipped} == {"w1", "b1", "b2"}
    with pytest.raises(UsageError, match="'nothing'"):
        learn(lesson, freeze=("nothing",))
    with pytest.raises(TrainingError, match="no weight is left"):
        learn(lesson, freeze=("*",))


def test_weights_that_no_gradient_reaches_are_said() -> None:
    model = parsed(
        """net (float[n,3] x) => (float[n,2] y) {
            h = MatMul(x, w)  b = Greater(h, x1)  s = Cast<to=1>(b)  z = MatMul(x, v)  y = Add(s, z)
        }""",
        {"w": (3, 2), "v": (3, 2)},
        x1=np.float32(0),
    )
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    result = train(load(model), {"x": x, "labels": np.arange(20) % 2}, epochs=1)
    assert [(entry.name, entry.reason) for entry in result.report.skipped] == [
        ("w", "no gradient reaches it")
    ]


def test_zeros_are_trained_if_masks_are_off(lesson: Lesson) -> None:
    learn(lesson, masks="none")
    assert weights(lesson.folder / "out.onnx")["w1"][~lesson.kept].any()


def test_bfloat16_learns_too(lesson: Lesson) -> None:
    losses = [row.loss for row in learn(lesson, precision="bfloat16", epochs=6).report.epochs[1:]]
    assert losses[-1] < 0.8 * losses[0]
    assert weights(lesson.folder / "out.onnx")["w1"].dtype == np.float32


def test_a_loss_that_is_no_number_ends_the_run_and_nothing_is_written(lesson: Lesson) -> None:
    with pytest.raises(TrainingError, match=r"loss became (nan|inf).*--learning-rate"):
        learn(lesson, optimizer="sgd", learning_rate=1e30)
    assert not (lesson.folder / "out.onnx").exists()


def test_clipping_holds_a_step_short(lesson: Lesson) -> None:
    given = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "schedule": "constant", "epochs": 1}
    learn(lesson, clip=1e-3, batch_size=150, **given)
    before, after = weights(lesson.pruned), weights(lesson.folder / "out.onnx")
    moved = math.sqrt(sum(float(((after[n].astype(float) - before[n]) ** 2).sum()) for n in before))
    assert moved == pytest.approx(1e-3, rel=1e-2)  # float32 weights near 1, moved by 1e-3 in all


# -- models and data of other forms


def test_samples_of_different_shapes(lesson: Lesson) -> None:
    model = parsed(
        "net (float[n,t,3] x) => (float[n,2] y) { m = ReduceMean<keepdims=0>(x, axes)  y = MatMul(m, w) }",
        {"w": (3, 2)},
        axes=np.array([1]),
    )
    rng = np.random.default_rng(0)
    feeds = [
        {"x": rng.standard_normal((n, t, 3)).astype(np.float32), "labels": np.arange(n) % 2}
        for n, t in ((5, 2), (4, 3))
    ]
    assert train(load(model), feeds, epochs=2, batch_size=2).report.epochs[-1].loss is not None


def test_a_model_of_one_batch_size() -> None:
    model = parsed("net (float[4,3] x) => (float[4,2] y) { y = MatMul(x, w) }", {"w": (3, 2)})
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    result = train(load(model), {"x": x, "labels": np.arange(10) % 2}, epochs=1)
    assert "8 samples" in result.report.data


def test_a_model_in_half_precision_is_trained_in_float32_and_written_in_half(tmp_path: Path) -> None:
    model = parsed(
        "net (float16[n,8] x) => (float16[n,3] y) { h = MatMul(x, v)  r = Relu(h)  y = MatMul(r, w) }",
        v=np.random.default_rng(0).normal(size=(8, 20)).astype(np.float16),
        w=np.random.default_rng(1).normal(size=(20, 3)).astype(np.float16),
    )
    x = np.random.default_rng(2).standard_normal((60, 8)).astype(np.float16)
    labels = np.argmax(x[:, :3], 1)
    result = train(load(model), {"x": x, "labels": labels}, output=tmp_path / "half.onnx", epochs=5)
    losses = [row.loss for row in result.report.epochs[1:]]
    assert losses[-1] < losses[0]
    assert array(load(tmp_path / "half.onnx"), "w").dtype == np.float16


def test_a_network_without_weights_is_refused() -> None:
    model = parsed("net (float[n,3] x) => (float[n,3] y) { y = Relu(x) }")
    with pytest.raises(TrainingError, match="no weights"):
        train(load(model), {"x": np.ones((4, 3), np.float32), "labels": np.zeros(4, int)})


def test_data_that_is_mapped_from_a_file_is_not_written_to(lesson: Lesson) -> None:
    with np.load(lesson.data) as file:
        np.save(lesson.folder / "x.npy", file["x"])
    learn(lesson, epochs=1, teacher=lesson.dense, evaluation=lesson.folder / "x.npy")
    train(lesson.pruned, lesson.folder / "x.npy", teacher=lesson.dense, epochs=1)


def test_the_package_finds_its_fine_tuning_by_itself() -> None:
    assert onnxprune.finetune.train is train


def test_a_network_that_draws_is_the_same_when_run_again() -> None:
    model = parsed(
        """net (float[n,3] x) => (float[n,2] y) {
            noise = RandomNormalLike(x)  z = Add(x, noise)  y = MatMul(z, w)
        }""",
        {"w": (3, 2)},
    )
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    data = {"x": x, "labels": np.arange(20) % 2}
    one, two = (array(train(load(model), data, epochs=2).model, "w") for _ in range(2))
    np.testing.assert_array_equal(one, two)


# -- schedules and batches


def test_schedules() -> None:
    cosine, step, constant = (resolve_training(schedule=name) for name in ("cosine", "step", "constant"))
    assert [rate(done, cosine) for done in (0, 0.5)] == [1, pytest.approx(0.5)]
    assert rate(0.999, cosine) < 1e-5
    assert [rate(done, step) for done in (0, 0.49, 0.5, 0.75)] == [1, 1, 0.1, pytest.approx(0.01)]
    assert rate(0.9, constant) == 1
    own = resolve_training(schedule="step", milestones=(0.2,), gamma=0.5)
    assert [rate(done, own) for done in (0.1, 0.3, 0.9)] == [1, 0.5, 0.5]


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    model = parsed("net (float[n,1] x) => (float[n,1] y) { y = MatMul(x, w) }", {"w": (1, 1)})
    data = open_data(np.arange(10, dtype=np.float32)[:, None], model.graph.inputs, batch_size=4)
    orders = []
    for epoch in (0, 1):
        batches = [batch for _, batch in epoch_batches(data, 0, epoch)]
        assert sorted(batch.count for batch in batches) == [2, 4, 4] and count_batches(data) == 3
        orders.append(np.concatenate([batch.feeds["x"].ravel() for batch in batches]))
        assert sorted(orders[-1]) == list(range(10))
        rest = [batch for _, batch in epoch_batches(data, 0, epoch, start=2)]
        np.testing.assert_array_equal(rest[0].feeds["x"], batches[2].feeds["x"])
    assert not np.array_equal(*orders)


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_processes_share_a_batch_and_count_it_once(processes: int) -> None:
    model = parsed("net (float[n,1] x) => (float[n,1] y) { y = MatMul(x, w) }", {"w": (1, 1)})
    data = open_data(
        {"x": np.arange(4, dtype=np.float32)[:, None], "labels": np.arange(4)}, model.graph.inputs
    )
    batch = next(data.batches())
    shares = [share_of(batch, data, rank, processes, torch.device("cpu")) for rank in range(processes)]
    # each takes the mean of its own, and these are averaged
    mean = sum(float(share.inputs[0].mean()) * share.weight for share in shares) / processes
    assert mean == pytest.approx(1.5)
    counted = [x for share in shares if share.weight for x in share.labels.tolist()]
    assert sorted(counted) == [0, 1, 2, 3]


# -- killed, and going on


class Killed(Exception):
    pass


class KillAfter:
    """Progress that ends the run when so many batches are done, as a signal could."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        def advance(steps: int, note: str = "") -> None:
            if name == "fine-tuning" and steps:
                self.left -= 1
                if self.left < 0:
                    raise Killed

        yield advance


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("batches", [1, 7, 14])
def test_a_run_that_was_killed_goes_on_to_the_same_file(
    lesson: Lesson, optimizer: str, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 batches an epoch, 3 epochs; a checkpoint after every batch."""
    monkeypatch.setattr(training, "_SHOWN", 1)
    monkeypatch.setattr(training, "_SAVED", -1.0)
    given = {"optimizer": optimizer, "evaluation": lesson.test, "weight_decay": 0.01}
    whole = learn(lesson, output=lesson.folder / "whole.onnx", **given)
    saved = lesson.folder / "state"
    with pytest.raises(Killed):
        learn(lesson, checkpoint=saved, progress=KillAfter(batches), **given)
    assert saved.exists() and not (lesson.folder / "out.onnx").exists()
    resumed = learn(lesson, checkpoint=saved, **given)
    assert (lesson.folder / "out.onnx").read_bytes() == (lesson.folder / "whole.onnx").read_bytes()
    assert resumed.report.epochs == whole.report.epochs and resumed.report.best == whole.report.best
    assert not saved.exists()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_kernels_whose_layout_in_memory_is_another_than_the_checkpoint_s_go_on_as_they_were(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused optimizer reads weights, gradients and state as they lie, and a file's lie in another order."""
    monkeypatch.setattr(training, "_SHOWN", 1)
    monkeypatch.setattr(training, "_SAVED", -1.0)
    text = """net (float[n,4,5,5] x) => (float[n,3] y) {
        c = Conv(x, k)  a = Relu(c)  f = GlobalAveragePool(a)  g = Flatten(f)  y = MatMul(g, w)
    }"""
    model = load(parsed(text, {"k": (6, 4, 3, 3), "w": (6, 3)}))
    x = np.random.default_rng(0).standard_normal((24, 4, 5, 5)).astype(np.float32)
    data: Any = {"x": x, "labels": np.arange(24) % 3}
    given: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "optimizer": optimizer}
    whole = train(model, data, **given)
    with pytest.raises(Killed):
        train(model, data, checkpoint=tmp_path / "state", progress=KillAfter(5), **given)
    resumed = train(model, data, checkpoint=tmp_path / "state", **given)
    np.testing.assert_array_equal(array(resumed.model, "k"), array(whole.model, "k"))


def test_a_process_that_was_killed_goes_on_to_the_same_file(lesson: Lesson) -> None:
    """With SIGKILL, from the command line."""
    given = {"epochs": 60, "batch_size": 16}
    options = [
        "--data",
        "data.npz",
        "--epochs",
        "60",
        "--batch-size",
        "16",
        "--checkpoint",
        "state",
        "--quiet",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "onnxprune", "finetune", "pruned.onnx", *options]
    state = lesson.folder / "state"
    with subprocess.Popen(command, cwd=lesson.folder, env=environment) as child:
        deadline = time.monotonic() + 120
        while not _epochs_done(state) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL, "it had ended before it could be killed"
    assert 0 < _epochs_done(state) < 60
    train(lesson.pruned, lesson.data, output=lesson.folder / "out.onnx", checkpoint=state, **given)
    train(lesson.pruned, lesson.data, output=lesson.folder / "whole.onnx", **given)
    assert (lesson.folder / "out.onnx").read_bytes() == (lesson.folder / "whole.onnx").read_bytes()


def _epochs_done(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safetensors.safe_open(checkpoint, framework="numpy") as file:
        return int(json.loads(file.metadata()["position"])["epoch"])


@pytest.fixture
def stopped(lesson: Lesson) -> Path:
    """The checkpoint of a run that was stopped in its second epoch."""
    with pytest.raises(Killed):
        learn(lesson, checkpoint=lesson.folder / "state", progress=KillAfter(7))
    return lesson.folder / "state"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"epochs": 4}, "its epochs is 3, not 4"),
        ({"learning_rate": 0.02}, "learning_rate"),
        ({"evaluation": "test.npz"}, "evaluation data"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(
    lesson: Lesson, stopped: Path, given: dict[str, Any], word: str
) -> None:
    given = {key: lesson.folder / value if key == "evaluation" else value for key, value in given.items()}
    with pytest.raises(TrainingError, match=f"another run.*{word}.*delete it"):
        learn(lesson, checkpoint=stopped, **given)
    assert stopped.exists()


def test_a_checkpoint_of_another_model_or_other_data_is_refused(lesson: Lesson, stopped: Path) -> None:
    with pytest.raises(TrainingError, match="model"):
        train(lesson.dense, lesson.data, checkpoint=stopped, epochs=3, batch_size=32, learning_rate=0.01)
    with pytest.raises(TrainingError, match="data"):
        train(lesson.pruned, lesson.test, checkpoint=stopped, epochs=3, batch_size=32, learning_rate=0.01)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "statistics"])
def test_a_damaged_checkpoint_is_refused(lesson: Lesson, stopped: Path, damage: str) -> None:
    whole = stopped.read_bytes()
    if damage == "statistics":
        onnxprune.calibrate(lesson.dense, lesson.data, output=stopped)
    else:
        stopped.write_bytes(
            {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello, is this a run?"}[damage]
        )
    with pytest.raises(TrainingError, match="state"):
        learn(lesson, checkpoint=stopped)


# -- several processes


def test_two_processes_give_what_one_gives(lesson: Lesson) -> None:
    """Batches of 32 and one of 22 over two processes, started as users start them; rounding differs."""
    given = {"epochs": 3, "batch_size": 32, "learning_rate": 0.01, "objective": "both"}
    files = {"output": lesson.folder / "one.onnx", "teacher": lesson.dense, "evaluation": lesson.test}
    alone = train(lesson.pruned, lesson.data, **given, **files)
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "onnxprune"]
    arguments = [
        "finetune",
        "pruned.onnx",
        "--data",
        "data.npz",
        "--teacher",
        "dense.onnx",
        "--eval",
        "test.npz",
    ]
    command = [sys.executable, *launcher, *arguments, *options, "-o", "two.onnx", "--json", "two.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=lesson.folder, env=environment, check=True, capture_output=True, timeout=300)
    one, two = (weights(lesson.folder / f"{name}.onnx") for name in ("one", "two"))
    for name in one:
        # Adam divides by the root of squared gradients: rounding of small ones is not small
        np.testing.assert_allclose(two[name], one[name], atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(two["w1"] != 0, lesson.kept)
    report = json.loads((lesson.folder / "two.json").read_text())
    assert report["device"] == "cpu, 2 processes"
    losses = [row.loss for row in alone.report.epochs[1:]]
    np.testing.assert_allclose([row["loss"] for row in report["epochs"][1:]], losses, rtol=1e-4)


def test_a_model_of_one_batch_size_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.finetune.distributed import Processes
    from onnxprune.finetune.preparation import require_divisible

    model = parsed("net (float[4,3] x) => (float[4,2] y) { y = MatMul(x, w) }", {"w": (3, 2)})
    data = open_data(np.zeros((8, 3), np.float32), model.graph.inputs)
    with pytest.raises(TrainingError, match="one process"):
        require_divisible(data, Processes(0, 2, torch.device("cpu")))


def test_an_environment_half_set(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match="torchrun"):
        learn(lesson)


# -- torch and its devices


def test_without_torch_the_error_says_what_to_install(lesson: Lesson) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from onnxprune.cli import main\n"
        "main(['inspect', 'pruned.onnx'], standalone_mode=False)\n"
        "main(['finetune', 'pruned.onnx', '--data', 'data.npz'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.run(
        [sys.executable, "-c", script], cwd=lesson.folder, env=environment, capture_output=True, text=True
    )
    assert child.returncode == 1 and "nonzero" in child.stdout
    assert child.stderr.splitlines()[-1] == (
        "error: fine-tuning needs torch, which is not installed; install 'onnxprune[torch]'"
    )


def test_cuda_that_is_not_there(lesson: Lesson) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(RuntimeUnavailableError, match="--device cuda"):
        learn(lesson, device="cuda")


def test_a_model_that_cannot_be_converted(lesson: Lesson) -> None:
    text = "net (float[n,3] x) => (float[n,3] y) { u = Unique(x)  y = Identity(x) }"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
    proto.graph.output.append(onnx.helper.make_tensor_value_info("u", 1, ["k"]))
    with pytest.raises(OnnxPruneError, match="no function for Unique"):
        train(load(proto), {"x": np.zeros((4, 3), np.float32)}, teacher=load(proto), epochs=1)


def test_a_module_that_computes_something_else_is_not_trained(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune.finetune.ops import FUNCTIONS

    monkeypatch.setitem(FUNCTIONS, "Relu", torch.abs)
    with pytest.raises(OnnxPruneError, match="otherwise than onnxruntime"):
        learn(lesson)


def test_run_of_the_dense_network_is_what_the_lesson_says(lesson: Lesson) -> None:
    """The lesson itself: the dense network is right on its own labels, the pruned one is not."""
    with np.load(lesson.test) as file:
        x, labels = file["x"], file["labels"]
    assert (run(ir.load(lesson.dense), {"x": x})["p"].argmax(1) == labels).all()
    assert (run(ir.load(lesson.pruned), {"x": x})["p"].argmax(1) == labels).mean() < 0.85
