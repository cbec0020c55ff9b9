"""Valid models, and messages in which single fields are absurd."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
from hypothesis import strategies as st

from hostile.mutations import ODD_NUMBERS
from onnxprune.errors import ModelError
from onnxprune.tensors import require_whole

_TEXTS = {
    "mlp": """net (float[n,6] x) => (float[n,4] y) {
        h = Gemm<transB=1>(x, w1, b1)
        a = Relu(h)
        y = Gemm(a, w2, b2)
    }""",
    "cnn": """net (float[n,3,6,6] x) => (float[n,4] y) {
        c = Conv<pads=[1,1,1,1]>(x, k1, b3)
        m = BatchNormalization(c, scale, shift, mean, var)
        a = Relu(m)
        d = Conv<group=2>(a, k2, b3)
        p = MaxPool<kernel_shape=[2,2]>(d)
        g = GlobalAveragePool(p)
        s = Shape<start=0, end=1>(g)
        t = Concat<axis=0>(s, minus)
        f = Reshape(g, t)
        y = Gemm(f, w3, b4)
    }""",
    "tokens": """net (float[n,3,6] x) => (float[n,4] y) {
        q = MatMul(x, wq)
        k = Transpose<perm=[0,2,1]>(x)
        s = MatMul(q, k)
        p = Softmax<axis=-1>(s)
        v = MatMul(p, x)
        r = Slice(v, zero, two, one)
        u = Unsqueeze(r, zero)
        z = Squeeze(u, zero)
        m = ReduceMean<keepdims=0>(z, one)
        w = Expand(half, sizes)
        e = Mul(m, w)
        y = MatMul(e, w4)
    }""",
    "branches": """net (float[n,6] x, bool flag) => (float[n,4] y) {
        h = Gemm<transB=1>(x, w1, b1)
        a = If (flag) <
            then_branch = t () => (float[n,6] p) { p = Relu(h) },
            else_branch = e () => (float[n,6] q) { q = Identity(h) }
        >
        i = Identity(w2)
        y = Gemm(a, i, b2)
    }""",
}
_SHAPES = {
    "w1": (6, 6), "b1": (6,), "w2": (6, 4), "b2": (4,), "k1": (4, 3, 3, 3), "b3": (4,), "k2": (4, 2, 3, 3),
    "w3": (4, 4), "b4": (4,), "wq": (6, 6), "w4": (6, 4), "scale": (4,), "shift": (4,), "mean": (4,),
    "var": (4,),
}  # fmt: skip
_NUMBERS = {"zero": [0], "one": [1], "two": [2], "minus": [-1], "sizes": [1, 6]}
OPS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})


def message(name: str) -> onnx.ModelProto:
    """One of the models, whole."""
    rng = np.random.default_rng(0)
    text = _TEXTS[name]
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    used = {name for node in proto.graph.node for name in node.input}
    arrays = {key: np.abs(rng.standard_normal(shape)).astype(np.float32) for key, shape in _SHAPES.items()}
    arrays |= {key: np.array(values) for key, values in _NUMBERS.items()}
    arrays["half"] = np.float32([[0.5]])
    for key, array in arrays.items():
        if key in used or (name == "branches" and key == "w2"):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    return proto


NAMES = tuple(_TEXTS)


@st.composite
def absurd(draw: st.DrawFn) -> bytes:
    """A model whose message is well-formed and whose contents are not."""
    proto = message(draw(st.sampled_from(NAMES)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):  # with many, few are read at all
        _ALTERATIONS[draw(st.integers(0, len(_ALTERATIONS) - 1))](draw, proto)
    return proto.SerializeToString()


def _number(draw: st.DrawFn) -> int:
    return draw(st.sampled_from(ODD_NUMBERS) | st.integers(-4, 9))


def _names(proto: onnx.ModelProto) -> list[str]:
    values = [name for node in proto.graph.node for name in (*node.input, *node.output)]
    return [*values, *(tensor.name for tensor in proto.graph.initializer), "", "nowhere"]


def _dims(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    tensor = draw(st.sampled_from(list(proto.graph.initializer)))
    sizes = draw(st.lists(st.sampled_from(ODD_NUMBERS), max_size=4))
    del tensor.dims[:]
    tensor.dims.extend(sizes)
    if draw(st.booleans()):
        tensor.ClearField("raw_data")


def _type(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    tensor = draw(st.sampled_from(list(proto.graph.initializer)))
    tensor.data_type = draw(st.integers(0, 27))


def _contents(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    tensor = draw(st.sampled_from(list(proto.graph.initializer)))
    try:
        require_whole(tensor)
    except ModelError:  # made absurd already
        return
    if tensor.data_location or 0 in tensor.dims:
        return
    array = onnx.numpy_helper.to_array(tensor).copy()
    value = draw(st.sampled_from([0, 1, -1, 2**31 - 1, 2**40, -(2**40), np.nan, np.inf, 1e30, 1e-40]))
    with np.errstate(all="ignore"):
        flat = array.reshape(-1)
        flat[draw(st.integers(0, max(0, flat.size - 1)))] = np.array(value).astype(array.dtype)
    tensor.raw_data = array.tobytes()


def _op(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    draw(st.sampled_from(list(proto.graph.node))).op_type = draw(st.sampled_from(OPS))


_ATTRIBUTES = (
    "axis axes pads strides group dilations perm kernel_shape keepdims to alpha epsilon transA start end"
).split()


def _attribute(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    node = draw(st.sampled_from(list(proto.graph.node)))
    name = draw(st.sampled_from(_ATTRIBUTES))
    value = draw(
        st.just(_number(draw))
        | st.just([_number(draw), _number(draw)])
        | st.sampled_from([1e30, 0.0, "SAME_UPPER"])
    )
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def _wiring(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    node = draw(st.sampled_from(list(proto.graph.node)))
    names = draw(st.sampled_from([node.input, node.output]))
    if names:
        names[draw(st.integers(0, len(names) - 1))] = draw(st.sampled_from(_names(proto)))


def _order(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    nodes = list(proto.graph.node)
    index = draw(st.integers(0, len(nodes) - 1))
    if draw(st.booleans()):
        del proto.graph.node[index]
    else:
        proto.graph.node.append(nodes[index])


def _interface(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    value = draw(st.sampled_from([*proto.graph.input, *proto.graph.output]))
    match draw(st.integers(0, 3)):
        case 0:
            value.name = draw(st.sampled_from(_names(proto)))
        case 1:
            value.type.tensor_type.elem_type = draw(st.integers(0, 27))
        case 2 if value.type.tensor_type.shape.dim:
            dims = value.type.tensor_type.shape.dim
            dims[draw(st.integers(0, len(dims) - 1))].dim_value = _number(draw)
        case _:
            del value.type.tensor_type.shape.dim[draw(st.integers(0, 3)) :]


def _version(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    if draw(st.booleans()):
        proto.opset_import[0].version = _number(draw)
    else:
        proto.ir_version = _number(draw)


def _outside(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    tensor = draw(st.sampled_from(list(proto.graph.initializer)))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if draw(st.booleans()):
        tensor.ClearField("raw_data")
    for key in ("location", "offset", "length"):
        entry = tensor.external_data.add()
        entry.key = key
        entry.value = draw(
            st.sampled_from(
                ["model.onnx", "../x", "/etc/passwd", "", ".", "\0", "a" * 300, "0", "-1", "x", str(2**63)]
            )
        )


def _bomb(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    """Constants that would be folded into something huge."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2**16, 2**20, 2**31, 2**40, -1]), min_size=1, max_size=4))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes), "bomb"))
    op = draw(
        st.sampled_from(
            ["ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Reshape", "Pad", "OneHot", "EyeLike"]
        )
    )
    inputs = {
        "ConstantOfShape": ["bomb"],
        "Range": ["zero0", "big", "one0"],
        "Resize": [draw(st.sampled_from(_names(proto))), "", "", "bomb"],
        "OneHot": ["bomb", "big", "values"],
    }.get(op, [draw(st.sampled_from(_names(proto))), "bomb"])
    for name, value in (
        ("zero0", 0),
        ("one0", 1),
        ("big", 2 ** draw(st.integers(10, 62))),
        ("values", [0, 1]),
    ):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([onnx.helper.make_node(op, inputs, ["boom"]), *nodes])
    target = draw(st.sampled_from(nodes))
    if target.input and draw(st.booleans()):
        proto.graph.node[1 + nodes.index(target)].input[-1] = "boom"
    else:
        proto.graph.output.append(onnx.helper.make_tensor_value_info("boom", 1, ["?"]))


_ALTERATIONS = [
    _dims,
    _type,
    _contents,
    _op,
    _attribute,
    _wiring,
    _order,
    _interface,
    _version,
    _outside,
    _bomb,
]
