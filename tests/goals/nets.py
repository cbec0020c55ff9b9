"""A network with room: 5,000 weights, so that every per cent of them is a candidate of its own."""

import numpy as np
import onnx_ir as ir
from units.nets import parsed


def saved(folder):
    model = parsed(
        """net (float[n,20] x) => (float[n,4] y) {
            [one] h = Gemm<transB=1>(x, w1, b1)
            a = Relu(h)
            [two] h2 = Gemm<transB=1>(a, w2, b2)
            a2 = Relu(h2)
            [three] y = Gemm<transB=1>(a2, w3)
        }""",
        {"w1": (60, 20), "b1": (60,), "w2": (60, 60), "b2": (60,), "w3": (4, 60)},
        0,
    )
    ir.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def data(count=16, seed=1):
    return np.random.default_rng(seed).standard_normal((count, 20)).astype(np.float32)
