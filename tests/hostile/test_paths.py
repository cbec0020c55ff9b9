"""External data may lie nowhere but in the model's folder, whatever part of the model it belongs to."""

import re

import numpy as np
import onnx
import onnx.parser
import pytest

from hostile.graphs import message
from onnxprune.errors import ModelError
from onnxprune.model import read

WEIGHTS = np.zeros((6, 6), np.float32)
OUTSIDE = [
    "../weights.bin",
    "inside/../../weights.bin",
    "/etc/passwd",
    "link.bin",
    "linked/weights.bin",
    "loop.bin",
    "C:\\weights.bin",
    "C:weights.bin",
    "..\\weights.bin",
    "\\\\server\\share\\weights.bin",
    "",
    "nul\0l.bin",
]


@pytest.fixture
def folder(tmp_path):
    """The model's folder, with links out of it; the file they lead to is there."""
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "model"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to("../weights.bin")
    (folder / "linked").symlink_to("..")
    (folder / "loop.bin").symlink_to("loop.bin")
    return folder


def stored(location, **more):
    tensor = onnx.TensorProto(name="secret", data_type=1, dims=WEIGHTS.shape, data_location=1)
    for key, value in {"location": location, "offset": "0", "length": str(WEIGHTS.nbytes), **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def initializer(tensor):
    proto = message("mlp")
    proto.graph.initializer.append(tensor)
    return proto


def constant(tensor):
    proto = message("mlp")
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    return proto


def subgraph(tensor):
    proto = message("branches")
    node = next(node for node in proto.graph.node if node.op_type == "If")
    node.attribute[0].g.initializer.append(tensor)
    return proto


def function(tensor):
    proto = message("mlp")
    nodes = [onnx.helper.make_node("Constant", [], ["c"], value=tensor)]
    proto.functions.append(onnx.helper.make_function("own", "f", [], ["c"], nodes, proto.opset_import))
    return proto


def sparse(tensor):
    proto = message("mlp")
    indices = onnx.numpy_helper.from_array(np.arange(6), "indices")
    tensor.dims[:] = [6]
    proto.graph.sparse_initializer.add(values=tensor, indices=indices, dims=[36])
    return proto


def refused(folder, proto):
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError) as error:
        read(folder / "model.onnx")
    return str(error.value)


@pytest.mark.parametrize("location", OUTSIDE)
@pytest.mark.parametrize("place", [initializer, constant, subgraph, function, sparse])
def test_outside(folder, place, location):
    words = refused(folder, place(stored(location)))
    assert re.search(r"weight 'secret' lies in .*, outside the model's folder; move the data file", words)
    assert repr(location) in words


def test_inside_it_is_read(folder):
    (folder / "model.onnx").write_bytes(initializer(stored("inside/weights.bin")).SerializeToString())
    assert "secret" in read(folder / "model.onnx").graph.initializers


@pytest.mark.parametrize(
    "more",
    [
        {"offset": "-1"},
        {"offset": "x"},
        {"length": "-1"},
        {"length": "8"},
        {"length": str(2**70)},
        {"offset": ""},
    ],
)
def test_places_within_the_file_that_cannot_be(folder, more):
    words = refused(folder, initializer(stored("inside/weights.bin", **more)))
    assert "weight 'secret' needs 144 bytes of 'inside/weights.bin', but the model says" in words


@pytest.mark.parametrize("offset", ["4", str(2**70)])
def test_places_beyond_the_end(folder, offset):
    assert "is cut off" in refused(folder, initializer(stored("inside/weights.bin", offset=offset)))


def test_a_folder_or_a_device_is_no_data_file(folder):
    assert "is missing" in refused(folder, initializer(stored("inside")))


def test_messages_in_memory_have_no_folder():
    with pytest.raises(ModelError, match="has its weights in other files; load it from its path instead"):
        read(initializer(stored("weights.bin")))
