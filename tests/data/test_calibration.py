"""The data of this package as onnxruntime's quantisation wants it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.data import PRESETS, open_data
from onnxprune.errors import DataError, ModelError
from onnxprune.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]
MODEL, SAMPLES = ROOT / "models/lenet_300_100.onnx", ROOT / "calibration/lenet_300_100.npz"


def drawn(reader: onnxprune.CalibrationReader) -> list[np.ndarray]:
    return [feed["input"] for feed in iter(reader.get_next, None)]


def weights(path: Path) -> dict[str, np.ndarray]:
    tensors = onnx.load(path).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) > 1}


def test_feeds_are_the_batches_of_the_data_under_the_name_of_the_input() -> None:
    reader = onnxprune.CalibrationReader(MODEL, SAMPLES, samples=70, seed=3)
    feeds = drawn(reader)
    assert [len(feed) for feed in feeds] == [32, 32, 6] and reader.get_next() is None
    data = open_data(SAMPLES, onnxprune.load(MODEL).graph.inputs, samples=70, seed=3)
    np.testing.assert_array_equal(np.concatenate(feeds), data.array("input"))
    reader.rewind()
    assert len(drawn(reader)) == 3


def test_images_are_prepared_as_for_compress(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image.fromarray(pixels).save(tmp_path / "a.png")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[n,3,4,4] x) => (float[n,3,4,4] y) {y = Relu(x)}'
    )
    onnx.save(model, tmp_path / "m.onnx")
    reader = onnxprune.CalibrationReader(tmp_path / "m.onnx", onnxprune.Images(tmp_path, PRESETS["unit"]))
    feed = reader.get_next()
    assert feed is not None
    # The table of numbers is float32: half a unit in its last place of numbers up to 1.
    np.testing.assert_allclose(feed["x"][0], pixels.transpose(2, 0, 1) / 255, rtol=0, atol=2**-24)


def test_what_does_not_fit_is_said_before_anything_is_quantised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not fit the input"):
        onnxprune.CalibrationReader(MODEL, np.zeros((4, 3), np.float32))
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"no\.onnx"):
        onnxprune.CalibrationReader(tmp_path / "no.onnx", None)


def test_the_quantiser_of_onnxruntime_takes_it_and_zeros_stay(tmp_path: Path) -> None:
    """Pruned, then int8: as in the README."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    small, plain, int8 = (tmp_path / name for name in ("small.onnx", "plain.onnx", "int8.onnx"))
    onnxprune.compress(MODEL, SAMPLES, recipe="magnitude", ratio=0.25, output=small)
    onnxprune.unpack(small, plain)
    reader = onnxprune.CalibrationReader(plain, SAMPLES, samples=100)
    quantization.quantize_static(str(plain), str(int8), reader, per_channel=True)
    before, after = weights(plain), weights(int8)
    for name, weight in before.items():
        quantised = after[f"{name}_quantized"]
        assert quantised.dtype == np.int8 and not quantised[weight == 0].any() and (weight == 0).any()
    agreement = evaluate(int8, SAMPLES, reference=small, samples=500).values["agreement"]
    assert agreement > 0.97  # 99 % measured
