"""What the CPU does, a GPU does as well: statistics, gradients, evaluation, a whole compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tiny import relative

import onnxprune
from onnxprune import algebra, load
from onnxprune.data import open_data
from onnxprune.evaluate import evaluate
from onnxprune.session import Session
from onnxprune.statistics import Gathering, collect

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="onnxruntime has no CUDA"
    ),
]

# float32 on both, summed in another order; TF32, which has three digits, would fail
ROUNDING = 1e-4

NETS = {"lenet_300_100": (784,), "lenet_5": (1, 28, 28), "resnet20_cifar10": (3, 32, 32)}


@pytest.fixture(params=NETS)
def net(request):
    model = load(ROOT / "models" / f"{request.param}.onnx")
    x = np.random.default_rng(0).standard_normal((48, *NETS[request.param])).astype(np.float32)
    return model, x


def test_a_session_is_on_the_gpu(net):
    assert Session(net[0].ir).provider == "CUDAExecutionProvider"


@pytest.mark.parametrize("loss", ["auto", "gaussian"])
def test_statistics_are_those_of_the_cpu(net, loss):
    model, x = net
    data = open_data({model.graph.inputs[0].name: x}, model.graph.inputs, batch_size=16)
    cpu, gpu = (
        collect(model.ir, model.sha256, data, Gathering(loss=loss, provider=provider))
        for provider in ("cpu", "cuda")
    )
    for name, known in cpu.layers.items():
        found = gpu.layers[name]
        assert relative(found.activations.mean(), known.activations.mean()) < ROUNDING, name
        assert relative(found.gradients.mean(), known.gradients.mean()) < ROUNDING, name


def test_large_matrices_are_factored_and_multiplied_as_on_the_cpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA")
    rows = np.random.default_rng(0).standard_normal((1500, 1100))
    matrix = rows.T @ rows / 1500 + np.eye(1100)
    with algebra.on("cuda"):
        found, product = algebra.factored(matrix.copy()), algebra.times(matrix[None].astype(np.float32))
    assert isinstance(found, algebra._There)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(found.inverse_diagonal(), np.diag(inverse), rtol=1e-9)  # float64
    np.testing.assert_allclose(found.solve(rows[:5]), rows[:5] @ inverse, rtol=1e-7, atol=1e-9)
    few = rows[None, :5].astype(np.float32)
    assert relative(product(few), few.astype(np.float64) @ matrix) < ROUNDING / 10


def test_a_compression_is_that_of_the_cpu(mnist_calibration, mnist_eval, tmp_path):
    reports = {
        provider: onnxprune.compress(
            ROOT / "models" / "lenet_300_100.onnx",
            mnist_calibration,
            ratio=0.1,
            provider=provider,
            evaluation=mnist_eval,
            output=tmp_path / f"{provider}.onnx",
        ).report
        for provider in ("cpu", "cuda")
    }
    assert reports["cpu"].nonzero_after == pytest.approx(reports["cuda"].nonzero_after, rel=1e-3)
    # of 1,000 images at least; two masks that differ by rounding differ by a few of them
    assert abs(reports["cpu"].metric.after - reports["cuda"].metric.after) < 0.005


def test_units_go_there_too(tmp_path):
    x = np.random.default_rng(0).standard_normal((64, 3, 32, 32)).astype(np.float32)
    path = ROOT / "models" / "resnet20_cifar10.onnx"
    small = onnxprune.compress(path, {"input": x}, macs=0.6, provider="cuda", output=tmp_path / "small.onnx")
    assert small.report.macs_after / small.report.macs_before < 0.61
    values = [
        evaluate(tmp_path / "small.onnx", {"input": x}, reference=load(path).ir, provider=p).values
        for p in ("cpu", "cuda")
    ]
    assert values[0]["kl"] == pytest.approx(values[1]["kl"], rel=1e-3)


@pytest.mark.parametrize("training", [{"optimizer": "sgd"}, {"optimizer": "adamw", "clip": 1.0}], ids=str)
def test_a_recorded_training_step_is_the_step_itself(training, tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    path = ROOT / "models" / "lenet_5.onnx"
    x = (
        np.random.default_rng(0).standard_normal((500, 1, 28, 28)).astype(np.float32)
    )  # the last batch is short
    how = {"teacher": path, "epochs": 3, "batch_size": 64, "holdout": 0, "learning_rate": 0.01} | training
    small = tmp_path / "small.onnx"
    onnxprune.compress(path, {"input": x}, ratio=0.1, output=small)
    weights, skipped = [], []
    for device in ("cpu", "cuda"):
        tuned = onnxprune.finetune.train(small, {"input": x}, device=device, **how)
        skipped += [entry.name for entry in tuned.report.skipped]
        weights.append({name: v.const_value.numpy() for name, v in tuned.model.graph.initializers.items()})
    assert "training step" not in skipped
    for name, known in weights[0].items():
        # 24 steps that round otherwise, in TF32 on the GPU, and AdamW divides by the gradient's size: 0.011
        # was measured; a step left out, or another batch's labels, is a tenth or more
        assert relative(weights[1][name], known) < 0.03, name
