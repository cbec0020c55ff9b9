"""Weights that are numbers already, foreign ops, ops of training."""

import numpy as np

from hard_cases.case import SAME, SAMPLES, Case, floats, text

RNG = np.random.default_rng(3)


def int8(*shape):
    return RNG.integers(-100, 100, shape).astype(np.int8)


S = {"s": np.float32(0.02), "z": np.int8(0), "zu": np.uint8(128)}
QDQ = text(
    """net (float[n,16] x) => (float[n,8] y) {
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        w1 = DequantizeLinear(w1q, s, z)
        h = Gemm(xd, w1, b1)
        a = Relu(h)
        aq = QuantizeLinear(a, s, z)
        ad = DequantizeLinear(aq, s, z)
        y = Gemm(ad, w2, b2)
    }""",
    {"b1": (24,), "w2": (24, 8), "b2": (8,)},
    w1q=int8(16, 24),
    **{k: S[k] for k in ("s", "z")},
)
QDQ_ALL = text(
    """net (float[n,16] x) => (float[n,8] y) {
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        w1 = DequantizeLinear(w1q, s, z)
        h = MatMul(xd, w1)
        y = Relu(h)
    }""",
    w1q=int8(16, 8),
    **{k: S[k] for k in ("s", "z")},
)
QDQ_CHANNEL = text(
    """net (float[n,3,8,8] x) => (float[n,5] y) {
        k1 = DequantizeLinear<axis=0>(k1q, s1, z1)
        h = Conv(x, k1, b1)
        a = Relu(h)
        c = Conv(a, k2, b2)
        p = GlobalAveragePool(c)
        f = Flatten(p)
        y = Gemm(f, w, b)
    }""",
    {"b1": (8,), "k2": (6, 8, 3, 3), "b2": (6,), "w": (6, 5), "b": (5,)},
    k1q=int8(8, 3, 3, 3),
    s1=np.full(8, 0.01, np.float32),
    z1=np.zeros(8, np.int8),
)
DYNAMIC = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        q, qs, qz = DynamicQuantizeLinear(a)
        i = MatMulInteger(q, w2q, qz, z)
        f = Cast<to=1>(i)
        t = Mul(qs, s)
        y = Mul(f, t)
    }""",
    {"w1": (16, 24), "b1": (24,)},
    w2q=int8(24, 8),
    **{k: S[k] for k in ("s", "z")},
)
QLINEAR = text(
    """net (float[n,3,8,8] x) => (float[n,5] y) {
        h = Conv<pads=[1,1,1,1]>(x, k1, b1)
        a = Relu(h)
        q = QuantizeLinear(a, s, z)
        c = QLinearConv(q, s, z, k2q, s, z, s, z)
        d = DequantizeLinear(c, s, z)
        p = GlobalAveragePool(d)
        f = Flatten(p)
        y = Gemm(f, w, b)
    }""",
    {"k1": (8, 3, 3, 3), "b1": (8,), "w": (6, 5), "b": (5,)},
    k2q=int8(6, 8, 3, 3),
    **{k: S[k] for k in ("s", "z")},
)
NBITS = text(
    """net (float[n,32] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        m = com.microsoft.MatMulNBits<K=32, N=16, bits=4, block_size=32>(a, q, sc)
        y = Gemm(m, w2, b2)
    }""",
    {"w1": (32, 32), "b1": (32,), "w2": (16, 8), "b2": (8,)},
    domains=', "com.microsoft": 1',
    q=RNG.integers(0, 255, (16, 1, 16)).astype(np.uint8),
    sc=np.full(16, 0.1, np.float32),
)

MICROSOFT = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = com.microsoft.Gelu(h)
        d = Gemm(a, w3, b3)
        e = Relu(d)
        y = Gemm(e, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w3": (24, 20), "b3": (20,), "w2": (20, 8), "b2": (8,)},
    domains=', "com.microsoft": 1',
)
FUSED = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = com.microsoft.FusedMatMul<alpha=0.5>(x, w1)
        a = Relu(h)
        d = Gemm(a, w3, b3)
        e = Relu(d)
        y = Gemm(e, w2, b2)
    }""",
    {"w1": (16, 24), "w3": (24, 20), "b3": (20,), "w2": (20, 8), "b2": (8,)},
    domains=', "com.microsoft": 1',
)
UNKNOWN = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = acme.Frobnicate(h)
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    domains=', "acme": 1',
)
ML = text(
    """net (float[n,16] x) => (float[n,8] y) {
        c = ai.onnx.ml.Scaler<offset=[0.1], scale=[2.0]>(x)
        h = Gemm(c, w1, b1)
        a = Relu(h)
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    domains=', "ai.onnx.ml": 3',
)
FUNCTION = text(
    """net (float[n,16] x) => (float[n,8] y) {
        a = local.block(x, w1, b1)
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    domains=', "local": 1',
    functions="""<domain: "local", opset_import: ["": 18]> block (x, w, b) => (y) {
        m = MatMul(x, w)
        h = Add(m, b)
        y = Relu(h)
    }""",
)
NESTED_FUNCTION = text(
    """net (float[n,16] x) => (float[n,8] y) {
        a = local.outer(x, w1, b1)
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    domains=', "local": 1',
    functions="""<domain: "local", opset_import: ["": 18, "local": 1]> outer (x, w, b) => (y) {
        h = local.inner(x, w, b)
        y = Relu(h)
    }
    <domain: "local", opset_import: ["": 18]> inner (x, w, b) => (y) {
        y = Gemm(x, w, b)
    }""",
)
RECURSIVE = text(
    """net (float[n,16] x) => (float[n,8] y) {
        a = local.block(x, w1, b1)
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    domains=', "local": 1',
    functions="""<domain: "local", opset_import: ["": 18, "local": 1]> block (x, w, b) => (y) {
        y = local.block(x, w, b)
    }""",
)

BN_TRAINING = text(
    """net (float[n,3,8,8] x) => (float[n,5] y) {
        h = Conv<pads=[1,1,1,1]>(x, k1, b1)
        m, rm, rv = BatchNormalization<training_mode=1>(h, scale, shift, mean, var)
        a = Relu(m)
        c = Conv(a, k2, b2)
        p = GlobalAveragePool(c)
        f = Flatten(p)
        y = Gemm(f, w, b)
    }""",
    {"k1": (8, 3, 3, 3), "b1": (8,), "k2": (6, 8, 3, 3), "b2": (6,), "w": (6, 5), "b": (5,)},
    scale=np.ones(8, np.float32),
    shift=np.zeros(8, np.float32),
    mean=np.zeros(8, np.float32),
    var=np.ones(8, np.float32),
)
DROPOUT = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        d, mask = Dropout(a, r, yes)
        y = Gemm(d, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    r=np.float32(0.1),
    yes=np.array(True),
)
LOSS = text(
    """net (float[n,16] x, int64[n] t) => (float[n,8] y, float loss) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        y = Gemm(a, w2, b2)
        loss = SoftmaxCrossEntropyLoss(y, t)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
)
ADAM = text(
    """net (float[n,16] x) => (float[n,8] y, float[24,8] w2new) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        y = Gemm(a, w2, b2)
        w2new, m2, v2 = ai.onnx.preview.training.Adam(rate, step, w2, g2, m, v)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,), "g2": (24, 8)},
    domains=', "ai.onnx.preview.training": 1',
    rate=np.float32(0.1),
    step=np.int64(1),
    m=np.zeros((24, 8), np.float32),
    v=np.zeros((24, 8), np.float32),
)
RANDOM = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        noise = RandomNormalLike(h)
        g = Add(h, noise)
        a = Relu(g)
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
)


def with_targets(rng):
    return {"x": rng.standard_normal((SAMPLES, 16)).astype(np.float32), "t": rng.integers(0, 8, SAMPLES)}


V16 = floats("x", 16)
CASES = [
    Case(
        "quantised",
        "DequantizeLinear of int8 weights, and a float layer",
        QDQ,
        V16,
        units="no unit can be removed: 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={"Gemm_1": "already quantised"},
    ),
    Case(
        "quantised",
        "DequantizeLinear of int8 weights, nothing else",
        QDQ_ALL,
        V16,
        weights="no layer is left to prune: already quantised (1 nodes); `onnxprune inspect` shows what there is",
        units=SAME,
    ),
    Case(
        "quantised", "per channel", QDQ_CHANNEL, floats("x", 3, 8, 8), reasons={"Conv_1": "already quantised"}
    ),
    Case(
        "quantised",
        "MatMulInteger behind a float layer",
        DYNAMIC,
        V16,
        weights="no layer is left to prune: already quantised (1 nodes); no gradient: DynamicQuantizeLinear node 'DynamicQuantizeLinear_1' (1 nodes); --saliency wanda --allocation uniform needs no gradient",
        units="no unit can be removed: DynamicQuantizeLinear 'DynamicQuantizeLinear_1' has no rule for units; `onnxprune inspect` shows what there is",
    ),
    Case(
        "quantised",
        "QLinearConv between float layers",
        QLINEAR,
        floats("x", 3, 8, 8),
        units="no unit can be removed: QuantizeLinear 'QuantizeLinear_1' has no rule for units; 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={
            "QLinearConv_1": "already quantised",
            "Conv_1": "no gradient: no path to an output that the loss depends on",
        },
    ),
    Case(
        "quantised",
        "MatMulNBits between float layers",
        NBITS,
        floats("x", 32),
        units="no unit can be removed: MatMulNBits 'MatMulNBits_1' has no rule for units; `onnxprune inspect` shows what there is",
        reasons={
            "MatMulNBits_1": "already quantised",
            "Gemm_1": "no gradient: com.microsoft.MatMulNBits node 'MatMulNBits_1'",
        },
    ),
    Case(
        "foreign ops",
        "com.microsoft.Gelu",
        MICROSOFT,
        V16,
        units="no unit can be removed: Gelu 'Gelu_1' has no rule for units; `onnxprune inspect` shows what there is",
        reasons={"Gemm_1": "no gradient: com.microsoft.Gelu node 'Gelu_1'"},
    ),
    Case(
        "foreign ops",
        "com.microsoft.FusedMatMul",
        FUSED,
        V16,
        units="no unit can be removed: no layer makes units that another layer reads; `onnxprune inspect` shows what there is",
    ),
    Case(
        "foreign ops",
        "a domain nobody knows",
        UNKNOWN,
        V16,
        weights="onnxruntime cannot load the model: it does not know the operator acme:Frobnicate; export the model with standard operators",
        units=SAME,
    ),
    Case(
        "foreign ops",
        "ai.onnx.ml.Scaler",
        ML,
        V16,
        units="no unit can be removed: no layer makes units that another layer reads; `onnxprune inspect` shows what there is",
    ),
    Case("foreign ops", "a function of the model", FUNCTION, V16),
    Case("foreign ops", "a function that calls another", NESTED_FUNCTION, V16),
    Case(
        "foreign ops",
        "a function that calls itself",
        RECURSIVE,
        V16,
        weights="MODEL: is not a valid ONNX model: Cycle detected in model-local function references: local::block -> local::block. Model-local functions must not be recursive.; export it again, or upgrade onnx",
        units=SAME,
    ),
    Case(
        "training",
        "BatchNormalization in training mode",
        BN_TRAINING,
        floats("x", 3, 8, 8),
        reasons={"Conv_1": "no gradient: BatchNormalization node 'BatchNormalization_1' (training mode)"},
    ),
    Case(
        "training",
        "Dropout in training mode",
        DROPOUT,
        V16,
        weights="Dropout 'Dropout_1' draws other numbers at every run, so that results cannot be compared; export the model for inference, or give the node a `seed`",
        units=SAME,
    ),
    Case(
        "training",
        "a loss as an output",
        LOSS,
        with_targets,
        weights="no layer is left to prune: no gradient: SoftmaxCrossEntropyLoss node 'SoftmaxCrossEntropyLoss_1' (2 nodes); --saliency wanda --allocation uniform needs no gradient",
        units="no unit can be removed: 'y' is an output of the model; no gradient: SoftmaxCrossEntropyLoss node 'SoftmaxCrossEntropyLoss_1'; --score norm needs no gradient",
    ),
    Case(
        "training",
        "Adam as a node",
        ADAM,
        V16,
        weights="onnxruntime cannot load the model: it does not know the operator ai.onnx.preview.training:Adam; export the model with standard operators",
        units=SAME,
    ),
    Case(
        "training",
        "noise drawn at every run",
        RANDOM,
        V16,
        weights="RandomNormalLike 'RandomNormalLike_1' draws other numbers at every run, so that results cannot be compared; export the model for inference, or give the node a `seed`",
        units=SAME,
    ),
]
