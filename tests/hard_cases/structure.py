"""Weights that are stored, shared or shaped in odd ways; files of several parts; graphs that are large."""

import numpy as np
import onnx
from onnx.external_data_helper import convert_model_to_external_data

from hard_cases.case import SAME, SAMPLES, Case, floats, text

V16 = floats("x", 16)
W = {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)}
BODY = "h = Gemm(x, w1, b1)\n a = Relu(h)\n y = Gemm(a, w2, b2)"


def mlp(body=BODY, weights=W, signature="(float[n,16] x) => (float[n,8] y)", **given):
    return text(f"net {signature} {{ {body} }}", weights, **given)


def external(folder):
    path = mlp()(folder)
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def two_files(folder):
    path = mlp()(folder)
    proto = onnx.load(path)
    convert_model_to_external_data(proto, all_tensors_to_one_file=False, size_threshold=0)
    onnx.save(proto, path)
    return path


def overlapping(folder):
    """Two weights of the same bytes of a file."""
    path = mlp(
        "h = MatMul(x, w1)\n a = Relu(h)\n g = MatMul(a, w2)\n e = Relu(g)\n y = Gemm(e, w3, b3)",
        {"w1": (16, 16), "w2": (16, 16), "w3": (16, 8), "b3": (8,)},
    )(folder)
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="model.data", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    first, second = proto.graph.initializer[:2]
    del second.external_data[:]
    second.external_data.extend(first.external_data)
    path.write_bytes(proto.SerializeToString())
    return path


def as_constants(proto):
    nodes = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in proto.graph.initializer]
    rest = list(proto.graph.node)
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend([*nodes, *rest])


def sparse(proto):
    dense = proto.graph.initializer[0]
    array = onnx.numpy_helper.to_array(dense).copy()
    array[:, ::2] = 0
    at = np.flatnonzero(array)
    values = onnx.numpy_helper.from_array(array.ravel()[at], dense.name)
    indices = onnx.numpy_helper.from_array(at.astype(np.int64), dense.name + "_indices")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, array.shape))
    del proto.graph.initializer[0]


def typed_data(proto):
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, 1, array.shape, array.ravel()))


def chain(nodes):
    """As many cheap nodes between two layers."""
    steps = "\n".join(f"v{i + 1} = {('Relu', 'Abs', 'Identity')[i % 3]}(v{i})" for i in range(nodes))
    return mlp(f"v0 = Gemm(x, w1, b1)\n {steps}\n y = Gemm(v{nodes}, w2, b2)")


def many_layers(layers):
    steps = "\n".join(
        f"g{i} = Gemm(v{i}, m{i}, c{i})\n r{i} = Relu(g{i})\n v{i + 1} = Add(r{i}, v{i})"
        for i in range(layers)
    )
    weights = {f"m{i}": (6, 6) for i in range(layers)} | {f"c{i}": (6,) for i in range(layers)}
    return mlp(
        f"{steps}\n y = Gemm(v{layers}, w2, b2)",
        weights | {"w2": (6, 8), "b2": (8,)},
        "(float[n,6] v0) => (float[n,8] y)",
    )


def wide(branches):
    steps = "\n".join(f"h{i} = Gemm(x, m{i}, c{i})\n r{i} = Relu(h{i})" for i in range(branches))
    weights = {f"m{i}": (16, 4) for i in range(branches)} | {f"c{i}": (4,) for i in range(branches)}
    joined = ", ".join(f"r{i}" for i in range(branches))
    return mlp(
        f"{steps}\n k = Concat<axis=1>({joined})\n y = Gemm(k, w2, b2)",
        weights | {"w2": (4 * branches, 8), "b2": (8,)},
    )


def two_gigabytes(folder):
    """A table above the limit of protobuf, of which 64 rows are not zero: a file with a hole."""
    rows, width = 4_400_000, 128
    path = mlp(
        "e = Gather(table, ids)\n h = MatMul(e, w1)\n g = Add(h, b1)\n a = Relu(g)\n y = MatMul(a, w2)",
        {"w1": (width, 24), "b1": (24,), "w2": (24, 8)},
        "(int64[n] ids) => (float[n,8] y)",
    )(folder)
    proto = onnx.load(path)
    table = proto.graph.initializer.add(name="table", data_type=1, dims=[rows, width], data_location=1)
    table.external_data.add(key="location", value="table.bin")
    path.write_bytes(proto.SerializeToString())
    with (folder / "table.bin").open("wb") as file:
        file.write(np.random.default_rng(0).standard_normal((64, width)).astype(np.float32).tobytes())
        file.truncate(4 * rows * width)
    return path


def few_ids(rng):
    return {"ids": rng.integers(0, 64, SAMPLES)}


def again(folder):
    """What was compressed already."""
    import onnxprune

    rng = np.random.default_rng(1)
    path = mlp()(folder)
    onnxprune.compress(path, V16(rng), ratio=0.97, units=0.2, output=path)
    return path


def one_thing(array_of):
    def edit(proto):
        tensor = proto.graph.initializer[0]
        array = onnx.numpy_helper.to_array(tensor).copy()
        array_of(array)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    return edit


CASES = [
    Case("weights", "in a file beside the model", external, V16),
    Case("weights", "each in a file of its own", two_files, V16),
    Case("weights", "two of the same bytes", overlapping, V16),
    Case("weights", "in Constant nodes", mlp(edit=as_constants), V16),
    Case("weights", "in a sparse initializer", mlp(edit=sparse), V16),
    Case("weights", "as lists of numbers instead of bytes", mlp(edit=typed_data), V16),
    Case(
        "weights",
        "one read by two layers",
        mlp(
            "h = Gemm(x, w1, b1)\n a = Relu(h)\n g = Gemm(a, w1, b1)\n e = Relu(g)\n y = Gemm(e, w2, b2)",
            {"w1": (16, 16), "b1": (16,), "w2": (16, 8), "b2": (8,)},
        ),
        V16,
        units="no unit can be removed: 'x' is an input of the model; 'y' is an output of the model; `onnxprune inspect` shows what there is",
    ),
    Case(
        "weights",
        "one read straight and transposed",
        mlp(
            "h = MatMul(x, w1)\n a = Relu(h)\n g = Gemm<transB=1>(a, w1)\n e = Relu(g)\n y = Gemm(e, w2, b2)",
            {"w1": (16, 16), "w2": (16, 8), "b2": (8,)},
        ),
        V16,
        units="no unit can be removed: 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={
            "MatMul_1": "weight w1 is used in 2 places that read it on different axes or with other strides",
            "Gemm_2": "1 unit stays: all weights with which it reads this unit are zero, but 'x' is an input of the model",
        },
    ),
    Case(
        "weights",
        "computed from another",
        mlp(
            "t = Mul(w1, half)\n h = Gemm(x, t, b1)\n a = Relu(h)\n y = Gemm(a, w2, b2)", half=np.float32(0.5)
        ),
        V16,
    ),
    Case(
        "weights",
        "computed from the input",
        mlp(
            "h = Gemm(x, w1, b1)\n a = Relu(h)\n m = ReduceMean<keepdims=1>(a, zero)\n t = Transpose(m)\n u = Mul(t, w2)\n y = Gemm(a, u, b2)",
            zero=np.array([0]),
        ),
        V16,
    ),
    Case("weights", "all zero", mlp(edit=one_thing(lambda w: w.fill(0))), V16),
    Case(
        "weights",
        "NaN among them",
        mlp(
            edit=one_thing(
                lambda w: (
                    w.itemset((0, 0), np.nan) if hasattr(w, "itemset") else w.__setitem__((0, 0), np.nan)
                )
            )
        ),
        V16,
        weights="layer 'Gemm_1' (Gemm) has NaN or Inf in its statistics; check the calibration data and the model's weights",
        units=SAME,
    ),
    Case(
        "weights",
        "infinite ones",
        mlp(edit=one_thing(lambda w: w.__setitem__((0, 0), np.inf))),
        V16,
        weights="layer 'Gemm_1' (Gemm) has NaN or Inf in its statistics; check the calibration data and the model's weights",
        units=SAME,
    ),
    Case(
        "weights",
        "1e30 among them",
        mlp(edit=one_thing(lambda w: w.__setitem__((0, 0), 1e30))),
        V16,
        weights="layer 'Gemm_2' (Gemm) has NaN or Inf in its statistics; check the calibration data and the model's weights",
        units=SAME,
    ),
    Case("weights", "denormal", mlp(edit=one_thing(lambda w: w.__imul__(np.float32(1e-40)))), V16),
    Case(
        "weights",
        "of rank 3 in MatMul",
        mlp(
            "h = MatMul(x, w1)\n a = Relu(h)\n y = MatMul(a, w2)",
            {"w1": (16, 24), "w2": (4, 24, 8)},
            "(float[4,n,16] x) => (float[4,n,8] y)",
        ),
        lambda rng: {"x": rng.standard_normal((4, SAMPLES, 16)).astype(np.float32)},
        units="no unit can be removed: read by MatMul 'MatMul_2', which is no prunable layer; `onnxprune inspect` shows what there is",
        reasons={"MatMul_2": "weight w2 has rank 3; only matrices are pruned"},
    ),
    Case(
        "weights",
        "none",
        mlp("y = Relu(x)", {}, "(float[n,16] x) => (float[n,16] y)"),
        V16,
        weights="no layer is left to prune: nothing in it is linear; `onnxprune inspect` shows what there is",
        units=SAME,
    ),
    Case("weights", "pruned and packed by this package", again, V16),
    Case(
        "graphs",
        "grouped and depthwise convolutions",
        text(
            """net (float[n,4,8,8] x) => (float[n,5] y) {
            h = Conv<group=2>(x, k1, b1)
            a = Relu(h)
            d = Conv<group=8>(a, k2, b2)
            e = Relu(d)
            c = Conv(e, k3)
            p = GlobalAveragePool(c)
            f = Flatten(p)
            y = Gemm(f, w, b)
        }""",
            {
                "k1": (8, 2, 3, 3),
                "b1": (8,),
                "k2": (8, 1, 3, 3),
                "b2": (8,),
                "k3": (6, 8, 1, 1),
                "w": (6, 5),
                "b": (5,),
            },
        ),
        floats("x", 4, 8, 8),
    ),
    Case(
        "graphs",
        "convolutions in one and in three dimensions",
        text(
            """net (float[n,2,6,6,6] x) => (float[n,5] y) {
            h = Conv(x, k1, b1)
            a = Relu(h)
            s = Reshape(a, sizes)
            c = Conv(s, k2)
            p = GlobalAveragePool(c)
            f = Flatten(p)
            y = Gemm(f, w, b)
        }""",
            {"k1": (8, 2, 3, 3, 3), "b1": (8,), "k2": (6, 8, 3), "w": (6, 5), "b": (5,)},
            sizes=np.array([0, 8, -1]),
        ),
        floats("x", 2, 6, 6, 6),
    ),
    Case("graphs", "300 nodes one after the other", chain(300), V16),
    Case(
        "graphs",
        "30 residual layers",
        many_layers(30),
        floats("v0", 6),
        units="no unit can be removed: 'v0' is an input of the model (30 families); 'y' is an output of the model; `onnxprune inspect` shows what there is",
    ),
    Case("graphs", "20 branches joined by Concat", wide(20), V16),
    Case("graphs", "10,000 nodes one after the other", chain(10_000), V16, slow=True),
    Case(
        "graphs", "more than 2 GB of weights, in a file beside the model", two_gigabytes, few_ids, slow=True
    ),
]
