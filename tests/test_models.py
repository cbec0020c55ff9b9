"""The committed models and calibration sets are what their README files say."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parent.parent


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(["logits"], {"input": images})
    return np.asarray(result)


def errors(path: Path, images: np.ndarray, labels: np.ndarray) -> int:
    return int((logits(path, images).argmax(1) != labels).sum())


# The counts are exact: in the closest call of each set the two highest logits lie at least 0.001 apart;
# onnxruntime's optimisations and the batch size move a logit by 2e-5 at most.


@pytest.mark.parametrize(("name", "wrong"), [("lenet_300_100", 32), ("lenet_5", 18)])
def test_the_lenets_are_as_good_as_stated(name: str, wrong: int) -> None:
    with np.load(ROOT / "calibration" / f"{name}.eval.npz") as arrays:
        assert errors(ROOT / "models" / f"{name}.onnx", arrays["input"], arrays["labels"]) == wrong


@pytest.mark.parametrize(("name", "wrong"), [("lenet_300_100", 142), ("lenet_5", 81)])
def test_the_lenets_are_as_good_as_stated_on_all_of_mnist(shared: Path, name: str, wrong: int) -> None:
    path = ROOT / "models" / f"{name}.onnx"
    shape = [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim][1:]
    with np.load(shared / "mnist" / "mnist_test.npz") as arrays:
        images = arrays["x"].astype(np.float32) / np.float32(255)
        assert errors(path, images.reshape(-1, *shape), arrays["y"]) == wrong


def test_resnet20_is_as_good_as_stated(resnet20: Path, cifar_test: dict[str, np.ndarray]) -> None:
    assert errors(resnet20, cifar_test["input"], cifar_test["labels"]) == 45


def test_small_conv_is_as_good_as_stated(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    monkeypatch.syspath_prepend(ROOT / "models")
    import cifar_jpeg

    images, labels = cifar_jpeg.images(shared / "cifar10", "test")
    assert errors(ROOT / "models" / "small_conv.onnx", images, labels) == 1493


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet_300_100", 266_610),
        ("lenet_5", 431_080),
        ("resnet20_cifar10", 269_034),
        ("small_conv", 424_394),
    ],
)
def test_parameters(name: str, parameters: int) -> None:
    initializers = onnx.load(ROOT / "models" / f"{name}.onnx").graph.initializer
    weights = [w for w in initializers if w.data_type == onnx.TensorProto.FLOAT]
    assert sum(math.prod(w.dims) for w in weights) == parameters


@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5", "resnet20_cifar10", "small_conv"])
def test_the_batch_is_dynamic(name: str) -> None:
    path = ROOT / "models" / f"{name}.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (given,), (result,) = model.graph.input, model.graph.output
    assert (given.name, result.name) == ("input", "logits")
    batch, *shape = given.type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    images = np.random.default_rng(0).random((3, *(d.dim_value for d in shape)), np.float32)
    three, one = logits(path, images), logits(path, images[:1])
    assert three.shape == (3, 10)
    # float32, sums of at most 800 terms in another order
    np.testing.assert_allclose(three[:1], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5"])
@pytest.mark.parametrize(("kind", "count"), [("", 1000), (".eval", 2000)])
def test_the_sets_are_whole_pixels(name: str, kind: str, count: int) -> None:
    with np.load(ROOT / "calibration" / f"{name}{kind}.npz") as arrays:
        images, labels = arrays["input"], arrays["labels"]
    assert images.dtype == np.float32 and labels.dtype == np.int64
    assert len(images) == len(labels) == count
    assert set(np.unique(labels)) == set(range(10))
    pixels = np.rint(images * 255).astype(np.uint8)
    np.testing.assert_array_equal(images, pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(("kind", "split"), [("", "train"), (".eval", "test")])
def test_the_recipe_makes_the_committed_sets(
    shared: Path, monkeypatch: pytest.MonkeyPatch, kind: str, split: str
) -> None:
    monkeypatch.syspath_prepend(ROOT / "calibration")
    import make_mnist

    count = 2000 if kind else 1000
    for name, shape in make_mnist.SHAPES.items():
        drawn = make_mnist.draw(shared / "mnist" / f"mnist_{split}.npz", count, shape, 0)
        with np.load(ROOT / "calibration" / f"{name}{kind}.npz") as committed:
            assert set(drawn) == set(committed)
            for key in drawn:
                np.testing.assert_array_equal(drawn[key], committed[key])
