"""Small files that ask for a lot: each is refused, or read, with a gigabyte and within a minute."""

import io
import json
import struct
import zipfile

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.helper import make_node

from hostile.graphs import message
from hostile.sandbox import Sandbox

HUGE = 2**40
ONE = np.float32(1)
PIXEL = np.ones((1, 1, 1, 1), np.float32)


@pytest.fixture(scope="module")
def sandbox():
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture
def place(tmp_path):
    (tmp_path / "model.onnx").write_bytes(message("mlp").SerializeToString())
    (tmp_path / "images.onnx").write_bytes(message("cnn").SerializeToString())
    return tmp_path


def with_dims(*dims):
    proto = message("mlp")
    proto.graph.initializer[0].ClearField("raw_data")
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    return proto


def made_of(op, *inputs, **arrays):
    """A model that adds something huge, made from constants, to its output."""
    proto = message("mlp")
    nodes = [make_node(op, inputs, ["huge"]), *proto.graph.node, make_node("Add", ["y", "huge"], ["z"])]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.output[0].name = "z"
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto


def fed_with(*sizes):
    proto = message("mlp")
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    del dims[:]
    for size in sizes:
        dims.add().dim_value = size
    return proto


def nested(depth):
    """If within If within If."""
    body = onnx.parser.parse_graph("g () => (float[n,6] o) { o = Identity(h) }")
    for level in range(depth):
        outer = onnx.parser.parse_graph("g () => (float[n,6] o) { o = Identity(h) }")
        node = make_node("If", ["flag"], ["o"], then_branch=body, else_branch=body if level < 2 else outer)
        del outer.node[:]
        outer.node.extend([node])
        body = outer
    proto = message("branches")
    node = next(node for node in proto.graph.node if node.op_type == "If")
    node.attribute[0].g.CopyFrom(body)
    return proto


def doubling(times):
    """A value that is concatenated with itself over and over."""
    proto = message("mlp")
    nodes = [make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(times)]
    nodes += [
        *proto.graph.node,
        make_node("ReduceSum", [f"c{times}"], ["s"], keepdims=0),
        make_node("Add", ["y", "s"], ["z"]),
    ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.output[0].name = "z"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(4, np.float32), "c0"))
    return proto


MODELS = {
    "a weight of 2⁴⁰ numbers without any": with_dims(HUGE),
    "a weight whose size overflows": with_dims(2**62, 2**62, 4),
    "a weight of nothing along a huge axis": with_dims(2**31, 0),
    "a weight of negative size": with_dims(-6, -6),
    "ConstantOfShape": made_of("ConstantOfShape", "shape", shape=[HUGE]),
    "ConstantOfShape of many axes": made_of("ConstantOfShape", "shape", shape=[2**16] * 4),
    "Expand": made_of("Expand", "half", "shape", half=np.float32([0.5]), shape=[HUGE]),
    "Tile": made_of("Tile", "half", "times", half=np.float32([0.5]), times=[HUGE]),
    "Range": made_of("Range", "zero", "end", "one", zero=np.float32(0), end=np.float32(1e12), one=ONE),
    "Pad": made_of("Pad", "half", "pads", half=np.float32([0.5]), pads=[0, HUGE]),
    "Resize": made_of("Resize", "pixel", "", "", "sizes", pixel=PIXEL, sizes=[1, 1, 2**20, 2**20]),
    "OneHot": made_of("OneHot", "at", "depth", "values", at=[0], depth=HUGE, values=np.float32([0, 1])),
    "Gather of a constant": made_of("Gather", "row", "at", row=np.ones((1, 2**16)), at=np.zeros(2**16, int)),
    "a Concat doubled 40 times": doubling(40),
    "an input of 2⁴⁰ numbers a sample": fed_with(1, HUGE),
    "a batch of 2⁴⁰ samples": fed_with(HUGE, 6),
    "15 subgraphs within each other": nested(15),  # protobuf reads no more than 20
}  # fmt: skip


@pytest.mark.parametrize("reader", ["inspect", "compress"])
@pytest.mark.parametrize("name", MODELS)
def test_models(sandbox, place, name, reader):
    (place / "hostile.onnx").write_bytes(MODELS[name].SerializeToString())
    sandbox.give(reader, place / "hostile.onnx")


def npy(shape, descr="<f4", version=(1, 0), data=b""):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header + data


def zipped(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    return stream.getvalue()


DATA = {
    "huge.npy": npy((HUGE, 6)),
    "huge.npz": zipped(npy((HUGE, 6))),
    "deep.npy": npy("(" * 5000),
    "objects.npy": npy((8, 6), "|O", data=b"cos\nsystem\n(S'true'\ntR."),
    "objects.npz": zipped(npy((8, 6), "|O", data=b"cos\nsystem\n(S'true'\ntR.")),
    "fields.npy": npy((8,), [("a", "<f4"), ("b", "<f4")]),
    "long.npy": npy((8, 6), version=(2, 0))[:10] + struct.pack("<I", 2**31),
    "many.csv": b"path,label\n" + b"x.npy,1\n" * 10**5,
    "wide.csv": b"path," + b"a," * 10**6 + b"\n",
    "cell.csv": b'path\n"' + b"x" * 10**7 + b'"\n',
}


@pytest.mark.parametrize("name", DATA)
def test_data(sandbox, place, name):
    (place / name).write_bytes(DATA[name])
    assert sandbox.give("data", place / name), "it cannot be what the model wants"


TEXTS = {
    "deep.yaml": "[" * 4000,
    "deep.json": "[" * 4000,
    "laughs.yaml": "a0: &a0 [1]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    + "mean: *a11",
    "object.yaml": "resize: !!python/object/apply:os.system ['true']",
    "long.yaml": "resize: 4\n" * 10**5,
    "number.json": json.dumps({"resize": 10**400}),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_preprocessing(sandbox, place, name):
    (place / name).write_text(TEXTS[name])
    assert sandbox.give("preprocess", place / name)


PLAN = {"sha256": "", "options": {}, "importance": {}, "units": {}, "kept": {}}
PLANS = {
    "a mask of 2⁶⁰ bits": json.dumps(PLAN | {"kept": {"a": {"shape": [2**30, 2**30], "bits": "AA=="}}}),
    "a mask of more axes than numpy has": json.dumps(
        PLAN | {"kept": {"a": {"shape": [1] * 100, "bits": "AA=="}}}
    ),
    "lists within lists": "[" * 10**5,
    "a number of 10,000 digits": '{"sha256": ' + "1" * 10**4 + "}",
}


@pytest.mark.parametrize("name", PLANS)
def test_plans(sandbox, place, name):
    (place / "hostile.plan").write_text(PLANS[name])
    assert sandbox.give("plan", place / "hostile.plan")
