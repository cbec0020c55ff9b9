"""Sparse tensors of the file (`sparse_initializer`, Constant's `sparse_value`) become dense ones.

Works on protobuf, before the graph is read: onnx_ir has no sparse tensors. Indices are flat, [nnz], or one
row of coordinates a value, [nnz, rank].
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def densify(model: onnx.ModelProto) -> None:
    """Replace every sparse tensor of the main graph by the dense tensor it stands for, in place."""
    graph = model.graph
    graph.initializer.extend(_dense(tensor) for tensor in graph.sparse_initializer)
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                tensor = _dense(attribute.sparse_tensor)
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)
