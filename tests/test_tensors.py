"""Tensors of files: as many bytes as their shape asks for, in every type and form."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.helper import make_tensor

from onnxprune.errors import ModelError
from onnxprune.tensors import require_whole, tensors

TYPES = [
    np.float32, np.float16, np.float64, np.int64, np.int32, np.int8, np.uint8, np.uint64, np.bool_,
    np.complex64, np.complex128, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, 
]  # fmt: skip
PACKED = [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn]  # two in a byte


@pytest.mark.parametrize("dtype", [*TYPES, *PACKED])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3)])
def test_whole_tensors_of_every_type_pass(dtype, shape):
    array = np.ones(shape).astype(dtype)
    require_whole(ir.to_proto(ir.tensor(array, name="t")))
    if dtype not in (
        ml_dtypes.int4,
        ml_dtypes.uint4,
        ml_dtypes.float4_e2m1fn,
    ):  # onnx's helper wants these packed
        kind = int(ir.DataType.from_numpy(np.dtype(dtype)))
        require_whole(make_tensor("t", kind, shape, array.reshape(-1)))


def test_strings_pass():
    require_whole(make_tensor("t", onnx.TensorProto.STRING, [2], [b"a", b"b"]))


def broken(**fields):
    tensor = onnx.numpy_helper.from_array(np.zeros((2, 3), np.float32), "t")
    for name, value in fields.items():
        if name == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, name, value)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (broken(dims=[]), "of shape [] needs 4 bytes and has 24"),
        (broken(dims=[2**40]), "needs 4,398,046,511,104 bytes and has 24"),
        (broken(dims=[-1, -6]), "cannot have the type 1 and the shape [-1, -6]"),
        (broken(data_type=0), "cannot have the type 0"),
        (broken(data_type=99), "cannot have the type 99"),
        (broken(raw_data=b"1"), "needs 24 bytes and has 1"),
        (make_tensor("t", 1, [0], []), None),
        (onnx.TensorProto(name="t", data_type=1, dims=[2]), "needs 2 numbers and has 0"),
        (onnx.TensorProto(name="t", data_type=8, dims=[2]), "needs 2 numbers and has 0"),
    ],
)
def test_a_shape_that_the_data_do_not_fill_is_refused(tensor, words):
    if words is None:
        require_whole(tensor)
        return
    with pytest.raises(ModelError) as error:
        require_whole(tensor)
    assert words in str(error.value) and "'t'" in str(error.value)


def test_every_tensor_of_a_model_is_looked_at():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "own": 1]>
        g (float[n] x, bool b) => (float[n] y) <float[1] a = {1}> {
            c = Constant<value = float[1] {2}>()
            y = If (b) <then_branch = t () => (float[n] p) <float[1] d = {3}> { p = Mul(x, d) },
                        else_branch = e () => (float[n] q) { q = Add(x, c) }>
        }
        <domain: "own", opset_import: ["": 18]> f () => (z) { z = Constant<value = float[1] {4}>() }"""
    )
    sparse = onnx.numpy_helper.from_array(np.float32([5]), "s")
    proto.graph.sparse_initializer.add(
        values=sparse, indices=onnx.numpy_helper.from_array(np.array([0]), "i")
    )
    found = [onnx.numpy_helper.to_array(tensor).item() for tensor in tensors(proto)]
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
