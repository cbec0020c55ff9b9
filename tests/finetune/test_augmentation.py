"""Images that move: each as loops would move it, the same again at the same step, and nothing but images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tiny import samples
from units.nets import array, parsed

from onnxprune.data import Batch, Data, open_data
from onnxprune.errors import UsageError
from onnxprune.finetune import train
from onnxprune.finetune.augmentation import augmented
from onnxprune.options import Training

NCHW = "net (float[n,3,6,5] x, float[n,2] z) => (float[n,3,6,5] y) { y = Relu(x) }"
NHWC = "net (float[n,6,5,3] x, float[n,2] z) => (float[n,6,5,3] y) { y = Relu(x) }"
CLASSIFIER = """net (float[n,2,6,6] x) => (float[n,3] y) {
    c = Conv(x, k, b)
    a = Relu(c)
    f = GlobalMaxPool(a)
    g = Flatten(f)
    y = Gemm(g, w)
}"""
SHAPES = {"k": (6, 2, 3, 3), "b": (6,), "w": (6, 3)}


def opened(text: str, count: int = 40) -> tuple[Data, Batch]:
    model = parsed(text)
    feeds = {
        value.name: samples(tuple(int(size) for size in list(value.shape)[1:]), count)
        for value in model.graph.inputs
    }
    data = open_data(feeds, model.graph.inputs, batch_size=count)
    return data, next(data.batches())


def all_ways(image: np.ndarray, most: int, mirror: bool) -> dict[tuple[int, int, bool], np.ndarray]:
    """Every way to move an image [height, width, channels]: past its edge it goes on as it ends."""
    edge = np.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    height, width, _ = image.shape
    found = {}
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            moved = edge[most - down : most - down + height, most - right : most - right + width]
            found[down, right, False] = moved
            if mirror:
                found[down, right, True] = moved[:, ::-1]
    return found


@pytest.mark.parametrize(("shift", "mirror"), [(2, True), (1, False), (0, True)])
@pytest.mark.parametrize("text", [NCHW, NHWC])
def test_every_image_is_moved_in_one_of_all_ways(text: str, shift: int, mirror: bool) -> None:
    data, batch = opened(text)
    options = Training(shift=shift, mirror=mirror, seed=3)
    made = augmented(batch, data, options, 7)
    behind = text == NCHW
    before, after = (
        np.moveaxis(each.feeds["x"], 1, 3) if behind else each.feeds["x"] for each in (batch, made)
    )
    drawn = set()
    for one, other in zip(before, after, strict=True):
        (way,) = [way for way, moved in all_ways(one, shift, mirror).items() if (moved == other).all()]
        drawn.add(way)
    most = (2 * shift + 1) ** 2 * (1 + mirror)
    assert len(drawn) > min(most, 40) / 2  # 40 images see most of up to 50 ways
    assert made.feeds["x"].dtype == np.float32 and made.feeds["x"].shape == batch.feeds["x"].shape
    np.testing.assert_array_equal(made.feeds["z"], batch.feeds["z"])


def test_what_is_drawn_follows_from_seed_and_step() -> None:
    data, batch = opened(NCHW)

    def made(step: int, **given: Any) -> np.ndarray:
        return augmented(batch, data, Training(**({"shift": 2, "mirror": True} | given)), step).feeds["x"]

    np.testing.assert_array_equal(made(4), made(4))
    assert (made(4) != made(5)).any() and (made(4) != made(4, seed=1)).any()
    assert augmented(batch, data, Training(), 4) is batch


def lesson(folder: Path, text: str, shapes: dict[str, tuple[int, ...]], y: np.ndarray) -> tuple[Path, Any]:
    path = folder / "net.onnx"
    model = parsed(text, shapes)
    ir.save(model, path)
    shape = tuple(int(size) for size in list(model.graph.inputs[0].shape)[1:])
    return path, {"x": samples(shape, len(y)), "labels": y}


def test_training_sees_the_moved_images_and_is_the_same_again(tmp_path: Path) -> None:
    path, data = lesson(tmp_path, CLASSIFIER, SHAPES, np.arange(48) % 3)
    given: dict[str, Any] = {"epochs": 2, "batch_size": 16, "holdout": 0.0, "learning_rate": 0.01}
    plain, moved, again = (
        array(train(path, data, **given, **more).model.ir, "k")
        for more in ({}, {"shift": 1, "mirror": True}, {"shift": 1, "mirror": True})
    )
    np.testing.assert_array_equal(moved, again)
    assert (plain != moved).any()


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path, data = lesson(
        tmp_path, "net (float[n,4] x) => (float[n,3] y) { y = Gemm(x, w) }", {"w": (4, 3)}, np.arange(9) % 3
    )
    with pytest.raises(UsageError, match=r"--shift: it is for images, .* the model wants 'x' float32\[n,4\]"):
        train(path, data, shift=1)
    with pytest.raises(UsageError, match="--mirror: it is for images"):
        train(path, data, mirror=True)


def test_labels_by_the_pixel_are_refused_since_they_would_stay(tmp_path: Path) -> None:
    text = "net (float[n,2,4,4] x) => (float[n,3,4,4] y) { c = Conv(x, k) y = Softmax<axis=1>(c) }"
    path, data = lesson(tmp_path, text, {"k": (3, 2, 1, 1)}, np.arange(8 * 16).reshape(8, 4, 4) % 3)
    with pytest.raises(UsageError, match="--shift: a sample has more than one label"):
        train(path, data, shift=1)
    assert train(path, data, teacher=path, shift=1, epochs=1, objective="distillation").report.epochs
