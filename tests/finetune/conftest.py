"""A pruned classifier that trains in a second, and what it trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from units.nets import array, parsed, put, run

from onnxprune.passes.pack import pack


@dataclass
class Lesson:
    """Files of a dense network, of a pruned and packed one, and of data the dense one labelled."""

    folder: Path
    dense: Path
    pruned: Path
    data: Path
    test: Path
    kept: np.ndarray


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    text = """net (float[batch,8] x) => (float[batch,3] p) {
        h = Gemm<transB=1>(x, w1, b1)  r = Relu(h)  y = Gemm<transB=1>(r, w2, b2)  p = Softmax(y)
    }"""
    dense = parsed(text, {"w1": (64, 8), "b1": (64,), "w2": (3, 64), "b2": (3,)})
    dense.metadata_props["author"] = "somebody"
    rng = np.random.default_rng(0)
    for name, count in (("data", 150), ("test", 200)):
        x = rng.standard_normal((count, 8)).astype(np.float32)
        labels = run(dense, {"x": x})["p"].argmax(1)
        np.savez(tmp_path / f"{name}.npz", x=x, labels=labels)
    pruned, kept = dense.clone(), rng.random((64, 8)) < 0.15
    put(pruned, "w1", np.where(kept, array(dense, "w1"), np.float32(0)))
    assert pack(pruned).packed
    ir.save(dense, tmp_path / "dense.onnx")
    ir.save(pruned, tmp_path / "pruned.onnx")
    names = ("dense.onnx", "pruned.onnx", "data.npz", "test.npz")
    return Lesson(tmp_path, *(tmp_path / name for name in names), kept)
