"""Numbers that are not float32."""

import ml_dtypes
import numpy as np

from hard_cases.case import SAME, Case, floats, text

MLP = {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)}
CNN = {"k1": (8, 3, 3, 3), "b1": (8,), "k2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 5), "b3": (5,)}


def mlp(kind, **given):
    return text(
        f"""net ({kind}[n,16] x) => ({kind}[n,8] y) {{
            h = Gemm(x, w1, b1)
            a = Relu(h)
            y = Gemm(a, w2, b2)
        }}""",
        MLP,
        **given,
    )


def cnn(kind, **given):
    return text(
        f"""net ({kind}[n,3,8,8] x) => ({kind}[n,5] y) {{
            c = Conv<pads=[1,1,1,1]>(x, k1, b1)
            m = BatchNormalization(c, scale, shift, mean, var)
            a = Relu(m)
            d = Conv<pads=[1,1,1,1]>(a, k2, b2)
            e = Add(d, a)
            f = Relu(e)
            p = GlobalAveragePool(f)
            g = Flatten(p)
            y = Gemm(g, w3, b3)
        }}""",
        CNN,
        scale=np.full(8, 1.5, given.get("dtype", np.float32)),
        shift=np.full(8, 0.1, given.get("dtype", np.float32)),
        mean=np.full(8, 0.1, given.get("dtype", np.float32)),
        var=np.full(8, 0.8, given.get("dtype", np.float32)),
        **given,
    )


def stored(kind, dtype):
    """Weights stored in another type, and cast to float32 where they are used."""
    return text(
        """net (float[n,16] x) => (float[n,8] y) {
            u1 = Cast<to=1>(w1)
            c1 = Cast<to=1>(b1)
            h = Gemm(x, u1, c1)
            a = Relu(h)
            u2 = Cast<to=1>(w2)
            c2 = Cast<to=1>(b2)
            y = Gemm(a, u2, c2)
        }""",
        MLP,
        dtype=dtype,
        opset=21,
        ir=10,
    )


MIXED = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        half = Cast<to=10>(a)
        z = Gemm(half, w2, b2)
        y = Cast<to=1>(z)
    }""",
    {"w1": (16, 24), "b1": (24,)},
    w2=(np.random.default_rng(1).standard_normal((24, 8)) / 5).astype(np.float16),
    b2=np.zeros(8, np.float16),
)

INSIDE = text(
    """net (float[n,16] x) => (float[n,8] y) {
        xb = Cast<to=16>(x)
        h = Gemm(xb, w1, b1)
        a = Relu(h)
        z = Gemm(a, w2, b2)
        y = Cast<to=1>(z)
    }""",
    MLP,
    dtype=ml_dtypes.bfloat16,
)

CASES = [
    Case(
        "precision",
        "float16, fully connected",
        mlp("float16", dtype=np.float16),
        floats("x", 16, dtype=np.float16),
    ),
    Case(
        "precision",
        "float16, convolutional",
        cnn("float16", dtype=np.float16),
        floats("x", 3, 8, 8, dtype=np.float16),
    ),
    Case(
        "precision",
        "bfloat16, fully connected",
        mlp("bfloat16", dtype=ml_dtypes.bfloat16),
        floats("x", 16),
        weights="the input 'x' takes bfloat16, which onnxruntime cannot be fed from Python; export the model with float32 or float16 inputs",
        units=SAME,
    ),
    Case(
        "precision",
        "bfloat16 inside, float32 outside",
        INSIDE,
        floats("x", 16),
        weights="onnxruntime cannot load the model: it has no implementation of Gemm 'Gemm_1' for numbers of this type; convert the model to float32",
        units=SAME,
    ),
    Case(
        "precision",
        "float64, fully connected",
        mlp("double", dtype=np.float64),
        floats("x", 16, dtype=np.float64),
    ),
    Case(
        "precision",
        "float64, convolutional",
        cnn("double", dtype=np.float64),
        floats("x", 3, 8, 8, dtype=np.float64),
        weights="onnxruntime cannot load the model: it has no implementation of Conv 'Conv_1' for numbers of this type; convert the model to float32",
        units=SAME,
    ),
    Case(
        "precision",
        "weights stored as float16, cast to float32",
        stored("float16", np.float16),
        floats("x", 16),
    ),
    Case(
        "precision",
        "weights stored as bfloat16, cast to float32",
        stored("bfloat16", ml_dtypes.bfloat16),
        floats("x", 16),
    ),
    Case(
        "precision",
        "weights stored as float8, cast to float32",
        stored("float8e4m3fn", ml_dtypes.float8_e4m3fn),
        floats("x", 16),
    ),
    Case("precision", "float32 and float16 layers in one graph", MIXED, floats("x", 16)),
]
