"""Fixtures that every test may use: the committed models and data, and what lies beside the checkout."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).resolve().parent.parent
Arrays = dict[str, npt.NDArray[np.generic]]


def _arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and models that is not in the repository; the test skips where it is absent."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs ../shared/data")
    return path


@pytest.fixture(scope="session")
def lenet_300_100() -> Path:
    return ROOT / "models" / "lenet_300_100.onnx"


@pytest.fixture(scope="session")
def lenet_5() -> Path:
    return ROOT / "models" / "lenet_5.onnx"


@pytest.fixture(scope="session")
def resnet20() -> Path:
    return ROOT / "models" / "resnet20_cifar10.onnx"


@pytest.fixture(scope="session")
def mnist_calibration() -> Arrays:
    """1,000 training images for LeNet-300-100: `input` float32[1000, 784] and `labels` int64[1000]."""
    return _arrays(ROOT / "calibration" / "lenet_300_100.npz")


@pytest.fixture(scope="session")
def mnist_eval() -> Arrays:
    """2,000 test images for LeNet-300-100, likewise."""
    return _arrays(ROOT / "calibration" / "lenet_300_100.eval.npz")


@pytest.fixture(scope="session")
def mnist_image_calibration() -> Arrays:
    """The images of `mnist_calibration` as LeNet-5 wants them: `input` float32[1000, 1, 28, 28]."""
    return _arrays(ROOT / "calibration" / "lenet_5.npz")


@pytest.fixture(scope="session")
def mnist_image_eval() -> Arrays:
    """The images of `mnist_eval` as LeNet-5 wants them."""
    return _arrays(ROOT / "calibration" / "lenet_5.eval.npz")


@pytest.fixture(scope="session")
def cifar_test(shared: Path) -> Arrays:
    """509 CIFAR-10 test images for ResNet-20: `input` float32[509, 3, 32, 32] and `labels` int64[509]."""
    raw = _arrays(shared / "cifar10" / "cifar10_test_lossless.npz")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images = (raw["x"].astype(np.float32) / np.float32(255) - mean) / std
    return {"input": np.ascontiguousarray(images.transpose(0, 3, 1, 2)), "labels": raw["y"].astype(np.int64)}
