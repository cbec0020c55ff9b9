"""Our files in OpenVINO: it computes what onnxruntime does, and saves the zeros. Skips without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxprune

openvino = pytest.importorskip("openvino")

ROOT = Path(__file__).resolve().parent.parent
MODEL, DATA = ROOT / "models/lenet_5.onnx", ROOT / "calibration/lenet_5.npz"
IMAGES = np.load(ROOT / "calibration/lenet_5.eval.npz")["input"][:64]
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def pruned(**options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        packed, plain = folder / "packed.onnx", folder / "plain.onnx"
        onnxprune.compress(MODEL, DATA, recipe="magnitude", output=packed, **options)
        onnxprune.unpack(packed, plain)
        return plain

    return make


def quantised(folder: Path) -> Path:
    from onnxruntime.quantization import quantize_static

    plain, int8 = pruned(ratio=0.1)(folder), folder / "int8.onnx"
    reader = onnxprune.CalibrationReader(plain, DATA, samples=64)
    quantize_static(str(plain), str(int8), reader, per_channel=True)
    return int8


#: How a file is made, and how far its outputs in OpenVINO may be from onnxruntime's, relative to the largest:
#: float32 sums in another order (3e-7 measured); int8 activations rounded the other way (6e-3 measured).
MADE = {
    "weights": (pruned(ratio=0.1), 1e-5),
    "units": (pruned(macs=0.5), 1e-5),
    "units and weights": (pruned(macs=0.5, ratio=0.1), 1e-5),
    "2:4": (pruned(pattern="2:4"), 1e-5),
    "int8": (quantised, 2e-2),
}
each = pytest.mark.parametrize("made", MADE)


def weights(path: Path) -> dict[str, np.ndarray]:
    tensors = onnx.load(path).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) > 1}


def constants(model: Any) -> list[np.ndarray]:
    return [node.get_data() for node in model.get_ops() if node.get_type_name() == "Constant"]


def compared(path: Path, saved: Path) -> float:
    session = onnxruntime.InferenceSession(path)
    (want,) = session.run(None, {session.get_inputs()[0].name: IMAGES})
    got = openvino.Core().compile_model(saved, "CPU", EXACT)(IMAGES)[0]
    return float(np.abs(got - want).max() / np.abs(want).max())


@each
def test_outputs_are_onnxruntime_s(made: str, tmp_path: Path) -> None:
    make, tolerance = MADE[made]
    path = make(tmp_path)
    assert compared(path, path) <= tolerance
    if made != "int8":
        assert compared(path, tmp_path / "packed.onnx") <= tolerance


@each
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_zeros_are_in_what_is_saved(made: str, half: bool, tmp_path: Path) -> None:
    path, saved = MADE[made][0](tmp_path), tmp_path / "saved.xml"
    core = openvino.Core()
    openvino.save_model(core.read_model(path), saved, compress_to_fp16=half)
    found = constants(core.read_model(saved))
    for name, weight in weights(path).items():
        stored = weight.astype(np.float16) if half and weight.dtype == np.float32 else weight
        assert any(c.shape == weight.shape and np.array_equal(c, stored) for c in found), name
        if made == "2:4" and weight.shape[1] % 4 == 0 and weight.ndim == 2:
            (same,) = [c for c in found if c.shape == weight.shape and np.array_equal(c, stored)]
            assert (np.count_nonzero(same.reshape(-1, 4), axis=1) <= 2).all()


def test_what_is_packed_stays_packed_in_what_is_saved(tmp_path: Path) -> None:
    path = pruned(ratio=0.1)(tmp_path)
    core, sizes = openvino.Core(), {}
    for name in ("packed", "plain"):
        model = core.read_model(tmp_path / f"{name}.onnx")
        openvino.save_model(model, tmp_path / f"{name}.xml", compress_to_fp16=False)
        sizes[name] = (tmp_path / f"{name}.bin").stat().st_size
        assert compared(path, tmp_path / f"{name}.xml") <= 1e-5
    assert sizes["packed"] < 0.2 * sizes["plain"]
