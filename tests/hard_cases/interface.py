"""Inputs, outputs, shapes, names."""

import numpy as np
import onnx

from hard_cases.case import SAME, SAMPLES, Case, floats, text

W = {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)}
V16 = floats("x", 16)
NEWEST_IN_ONNXRUNTIME = 26
STATISTICS = {"scale": 1.5, "shift": 0.1, "mean": 0.1, "var": 0.8}
BODY = "h = Gemm(x, w1, b1)\n a = Relu(h)\n y = Gemm(a, w2, b2)"


def mlp(signature="(float[n,16] x) => (float[n,8] y)", body=BODY, weights=W, **given):
    return text(f"net {signature} {{ {body} }}", weights, **given)


def conv(signature, body, **given):
    return text(
        f"net {signature} {{ {body} }}",
        {"k1": (8, 3, 3, 3), "b1": (8,), "k2": (6, 8, 3, 3), "b2": (6,), "w": (6, 5), "b": (5,)},
        **given,
    )


CONV = """h = Conv<pads=[1,1,1,1]>(x, k1, b1)
 a = Relu(h)
 c = Conv<pads=[1,1,1,1]>(a, k2, b2)
 r = Relu(c)
 p = GlobalAveragePool(r)
 f = Flatten(p)
 y = Gemm(f, w, b)"""


def several(*names_shapes):
    return lambda rng: {n: rng.standard_normal((SAMPLES, *s)).astype(np.float32) for n, s in names_shapes}


def rename_nodes(name):
    def edit(proto):
        for node in proto.graph.node:
            node.name = name

    return edit


def rename_values(table):
    def edit(proto):
        for node in proto.graph.node:
            for field in (node.input, node.output):
                field[:] = [table.get(n, n) for n in field]
        for values in (proto.graph.initializer, proto.graph.input, proto.graph.output):
            for v in values:
                v.name = table.get(v.name, v.name)

    return edit


def no_shapes(proto):
    for v in (*proto.graph.input, *proto.graph.output):
        v.type.tensor_type.ClearField("shape")


def initializers_as_inputs(proto):
    for t in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))


def wrong_annotation(proto):
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, ["n", 99]))


def wrong_output_shape(proto):
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def of_opset(opset):
    """A convolutional network with BatchNormalization, as exporters of its time wrote it."""
    edges = {name: np.full(8, value, np.float32) for name, value in STATISTICS.items()}
    return conv(
        "(float[n,3,8,8] x) => (float[n,5] y)",
        CONV.replace("a = Relu(h)", "m = BatchNormalization(h, scale, shift, mean, var)\n a = Relu(m)"),
        opset=opset,
        ir=3 if opset < 9 else 8 if opset < 19 else 10,
        edit=initializers_as_inputs if opset < 9 else None,
        **edges,
    )


def int_ids(rng):
    return {"ids": rng.integers(0, 30, (SAMPLES, 5))}


CASES = [
    # outputs
    Case(
        "outputs",
        "logits and a hidden value",
        mlp("(float[n,16] x) => (float[n,8] y, float[n,24] a)"),
        V16,
        units="no unit can be removed: 'a' is an output of the model; 'y' is an output of the model; `onnxprune inspect` shows what there is",
    ),
    Case(
        "outputs",
        "two heads",
        mlp(
            "(float[n,16] x) => (float[n,8] y, float[n,3] z)",
            BODY + "\n z = Gemm(a, w3, b3)",
            {**W, "w3": (24, 3), "b3": (3,)},
        ),
        V16,
    ),
    Case(
        "outputs",
        "an input passed through",
        mlp("(float[n,16] x) => (float[n,8] y, float[n,16] x2)", BODY + "\n x2 = Identity(x)"),
        V16,
    ),
    Case(
        "outputs",
        "a weight",
        mlp("(float[n,16] x) => (float[n,8] y, float[24,8] w2)"),
        V16,
        units="no unit can be removed: 'w2' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={"Gemm_2": "weight w2 is also read by a graph output"},
    ),
    Case(
        "outputs",
        "a constant",
        mlp("(float[n,16] x) => (float[n,8] y, int64[2] c)", BODY + "\n c = Constant<value_ints=[1,2]>()"),
        V16,
    ),
    Case(
        "outputs",
        "class numbers only",
        mlp("(float[n,16] x) => (int64[n] c)", BODY + "\n c = ArgMax<axis=1, keepdims=0>(y)"),
        V16,
        weights="no output of the model is a float: 'c'; prune by magnitude, which needs none",
        units=SAME,
    ),
    Case(
        "outputs",
        "class numbers only, by magnitude",
        mlp("(float[n,16] x) => (int64[n] c)", BODY + "\n c = ArgMax<axis=1, keepdims=0>(y)"),
        V16,
        options={"recipe": "magnitude", "score": "norm"},
    ),
    Case(
        "outputs",
        "class numbers and logits",
        mlp("(float[n,16] x) => (int64[n] c, float[n,8] y)", BODY + "\n c = ArgMax<axis=1, keepdims=0>(y)"),
        V16,
    ),
    Case(
        "outputs",
        "a sequence",
        mlp(
            "(float[n,16] x) => (seq(float[n,4]) s)",
            BODY + "\n s = SplitToSequence<axis=1>(y, four)",
            four=np.array(4),
        ),
        V16,
        weights="the output 's' (Sequence(Tensor(FLOAT))) is no numeric tensor, so that results cannot be compared; export the model up to the tensors it is made from",
        units=SAME,
    ),
    Case(
        "outputs",
        "one number for the batch",
        mlp("(float[n,16] x) => (float m)", BODY + "\n m = ReduceMean<keepdims=0>(y)"),
        V16,
    ),
    # inputs
    Case(
        "inputs",
        "two",
        mlp(
            "(float[n,16] x, float[n,16] u) => (float[n,8] y)",
            "v = Add(x, u)\n" + BODY.replace("Gemm(x", "Gemm(v"),
        ),
        several(("x", (16,)), ("u", (16,))),
    ),
    Case(
        "inputs",
        "one that nothing reads",
        mlp("(float[n,16] x, float[n,4] u) => (float[n,8] y)"),
        several(("x", (16,)), ("u", (4,))),
    ),
    Case(
        "inputs",
        "token numbers",
        mlp(
            "(int64[n,5] ids) => (float[n,5,8] y)",
            "e = Gather(table, ids)\n h = MatMul(e, w1)\n g = Add(h, b1)\n a = Relu(g)\n y = MatMul(a, w2)",
            {"table": (30, 16), **W},
        ),
        int_ids,
    ),
    Case(
        "inputs",
        "strings",
        mlp(
            "(string[n,5] s) => (float[n,8] y)",
            'l = ai.onnx.ml.LabelEncoder<keys_strings=["a"], values_floats=[1.0], default_float=0.0>(s)\n h = Gemm(l, w1, b1)\n a = Relu(h)\n y = Gemm(a, w2, b2)',
            {**W, "w1": (5, 24)},
            domains=', "ai.onnx.ml": 3',
        ),
        lambda rng: {"s": np.full((SAMPLES, 5), "a")},
        weights="the input 's' (STRING) is no numeric tensor; it cannot be fed",
        units=SAME,
    ),
    Case(
        "inputs",
        "images as uint8",
        conv("(uint8[n,3,8,8] u) => (float[n,5] y)", "x = Cast<to=1>(u)\n" + CONV),
        lambda rng: {"u": rng.integers(0, 255, (SAMPLES, 3, 8, 8)).astype(np.uint8)},
    ),
    Case(
        "inputs",
        "weights listed as inputs (IR version 3)",
        mlp(edit=initializers_as_inputs, ir=3, opset=9),
        V16,
    ),
    Case("inputs", "weights listed as inputs (IR version 8)", mlp(edit=initializers_as_inputs), V16),
    Case("inputs", "batch of one, fixed", mlp("(float[1,16] x) => (float[1,8] y)"), V16, one_by_one=True),
    Case(
        "inputs",
        "batch on the second axis",
        mlp(
            "(float[t,batch,16] x) => (float[t,batch,8] y)",
            "h = MatMul(x, w1)\n g = Add(h, b1)\n a = Relu(g)\n y = MatMul(a, w2)",
            W,
        ),
        lambda rng: {"x": rng.standard_normal((4, SAMPLES, 16)).astype(np.float32)},
    ),
    Case(
        "inputs",
        "scalar beside the batch",
        mlp(
            "(float[n,16] x, float t) => (float[n,8] y)", "v = Mul(x, t)\n" + BODY.replace("Gemm(x", "Gemm(v")
        ),
        lambda rng: {**V16(rng), "t": np.float32(1.5)},
    ),
    # shapes
    Case(
        "shapes",
        "every axis symbolic",
        conv("(float[n,c,h,w0] x) => (float[m,k] y)", CONV),
        floats("x", 3, 8, 8),
    ),
    Case(
        "shapes",
        "no shape at all",
        conv("(float[n,3,8,8] x) => (float[n,5] y)", CONV, edit=no_shapes),
        floats("x", 3, 8, 8),
        weights="MODEL: is not a valid ONNX model: Field 'shape' of 'type' is required but missing.; export it again, or upgrade onnx",
        units=SAME,
    ),
    Case(
        "shapes",
        "sizes of −1",
        conv(
            "(float[n,3,8,8] x) => (float[n,5] y)",
            CONV,
            edit=lambda p: [
                setattr(d, "dim_value", -1) for d in p.graph.input[0].type.tensor_type.shape.dim[::2]
            ],
        ),
        floats("x", 3, 8, 8),
    ),
    Case(
        "shapes",
        "one symbol for two different axes",
        conv("(float[n,3,n,8] x) => (float[n,5] y)", CONV),
        floats("x", 3, 8, 8),
    ),
    Case(
        "shapes",
        "Reshape by sizes computed at run time",
        conv(
            "(float[n,3,h,w0] x) => (float[n,5] y)",
            """h = Conv<pads=[1,1,1,1]>(x, k1, b1)
 a = Relu(h)
 c = Conv<pads=[1,1,1,1]>(a, k2, b2)
 r = Relu(c)
 p = GlobalAveragePool(r)
 s = Shape(p)
 n0 = Gather(s, zero)
 m = Constant<value_ints=[-1]>()
 n1 = Unsqueeze(n0, zero1)
 t = Concat<axis=0>(n1, m)
 f = Reshape(p, t)
 y = Gemm(f, w, b)""",
            zero=np.array(0),
            zero1=np.array([0]),
        ),
        floats("x", 3, 8, 8),
    ),
    Case("shapes", "a wrong annotation inside", mlp(edit=wrong_annotation), V16),
    Case("shapes", "a wrong annotation of the output", mlp(edit=wrong_output_shape), V16),
    Case(
        "shapes",
        "nothing left of an axis",
        mlp(
            "(float[n,16] x) => (float[n,8] y, float[n,0] e)",
            BODY + "\n e = Slice(a, zero1, zero1, one1)",
            zero1=np.array([0]),
            one1=np.array([1]),
        ),
        V16,
    ),
    Case(
        "shapes",
        "a layer of width 1",
        mlp(weights={"w1": (16, 1), "b1": (1,), "w2": (1, 8), "b2": (8,)}),
        V16,
        units="no unit can be removed: axis 1 of 'w1' has one index only; 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={
            "Gemm_1": "2 units stay: all weights with which it reads this unit are zero, but 'x' is an input of the model"
        },
    ),
    Case(
        "shapes",
        "a layer of width 0",
        mlp(weights={"w1": (16, 0), "b1": (0,), "w2": (0, 8), "b2": (8,)}),
        V16,
        weights="no layer is left to prune: weight w1 is empty (1 nodes); weight w2 is empty (1 nodes); `onnxprune inspect` shows what there is",
        units=SAME,
    ),
    # names
    Case("names", "no node has one", mlp(edit=rename_nodes("")), V16),
    Case("names", "all nodes have the same", mlp(edit=rename_nodes("node")), V16),
    Case(
        "names",
        "paths and line ends",
        mlp(
            edit=rename_values(
                {"w1": "../../w\n1", "h": "/a/b\th", "x": "x y", "y": "y:0", "w2": "ünïcode/✓"}
            )
        ),
        lambda rng: {"x y": V16(rng)["x"]},
    ),
    Case("names", "20,000 characters", mlp(edit=rename_values({"w1": "w" * 20000, "a": "a" * 20000})), V16),
    Case(
        "names",
        "those this package uses itself",
        mlp(
            edit=rename_values(
                {"w1": "loss", "h": "shape/0", "a": "grad", "w2": "0.A", "b1": "noise", "b2": "labels"}
            )
        ),
        V16,
    ),
    Case("names", "shell patterns", mlp(edit=rename_nodes("*[")), V16),
    *(
        Case("opsets", f"opset {opset}", of_opset(opset), floats("x", 3, 8, 8))
        for opset in range(7, NEWEST_IN_ONNXRUNTIME + 1)
    ),
    Case(
        "opsets",
        "an opset newer than onnxruntime",
        of_opset(NEWEST_IN_ONNXRUNTIME + 1),
        floats("x", 3, 8, 8),
        weights="onnxruntime cannot load the model: it has opset …, and this onnxruntime ends at …; "
        "upgrade onnxruntime, or export with opset …",
        units=SAME,
    ),
]
