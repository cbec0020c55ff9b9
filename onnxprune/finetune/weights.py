"""Weights: which initializers are trained, and how tensors go between the graph and torch.

Trained is what a layer or an affine node reads as its weights: `TRAINED` has the inputs. A number alone (a
bound, an epsilon, an exponent) is a constant, and so is everything that is not a float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

# By op, the inputs that hold weights; of those in `_AFFINE`, vectors and larger ones only.
TRAINED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), (1, 2)),
    **dict.fromkeys(
        ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"), (1, 2)
    ),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2, 3)),
    **dict.fromkeys(("PRelu", "RMSNormalization"), (1,)),
    **dict.fromkeys(("MatMul", "Einsum", "Add", "Sub", "Mul", "Div"), (0, 1)),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
}
_AFFINE = frozenset(("Add", "Sub", "Mul", "Div"))
_MOVES = frozenset("Cast Concat Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())

_DTYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.UINT8: torch.uint8,
}


def torch_dtype(dtype: ir.DataType | None) -> torch.dtype | None:
    """The same type in torch; None where torch has none."""
    return _DTYPES.get(dtype) if dtype is not None else None


def is_float(value: ir.Value) -> bool:
    """Whether `value` is an initializer of one of the four float types."""
    dtype = torch_dtype(value.const_value.dtype) if value.const_value is not None else None
    return dtype is not None and dtype.is_floating_point


def initializers_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """The initializers of `graph` and its branches, by the names that `model.parameters` gives them."""
    found: dict[str, ir.Value] = {}
    for owner in (graph, *graph.subgraphs()):
        for name, value in owner.initializers.items():
            if value.const_value is not None:
                found[name if name not in found else f"{owner.name}/{name}"] = value
    return found


def is_trained(value: ir.Value) -> bool:
    """Whether an initializer is a weight of some node that reads it, perhaps cut or turned before."""
    if not is_float(value) or value.const_value is None:
        return False
    return _is_weight(value, single=value.const_value.size == 1)


def _is_weight(value: ir.Value, single: bool) -> bool:
    for node, index in value.uses():
        if node.domain != "" or (single and node.op_type in _AFFINE):
            continue
        moved = node.op_type in _MOVES and any(_is_weight(output, single) for output in node.outputs)
        if index in TRAINED.get(node.op_type, ()) or moved:
            return True
    return False


def working_dtype(initializers: Iterable[ir.Value]) -> ir.DataType:
    """The float type most weights have: what the module computes in."""
    sizes: Counter[ir.DataType] = Counter()
    for value in initializers:
        if is_float(value) and value.const_value is not None:
            sizes[value.const_value.dtype] += value.const_value.size
    return max(sizes, key=lambda dtype: sizes[dtype]) if sizes else ir.DataType.FLOAT


def to_tensor(constant: ir.TensorProtocol) -> Tensor:
    """A copy in torch."""
    array = constant.numpy()
    if constant.dtype == ir.DataType.BFLOAT16:  # a dtype that torch does not know from numpy
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def to_constant(weight: Tensor, before: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor of an initializer from a weight in any float type on any device; `before` if it is equal."""
    host = weight.detach().cpu()
    if host.dtype == torch.bfloat16:  # numpy has no such type
        host = host.float()
    array: npt.NDArray[Any] = host.numpy().astype(before.dtype.numpy(), order="C")
    if np.array_equal(array, before.numpy()):  # to the sign of zeros
        return before
    return ir.tensor(array, dtype=before.dtype, name=before.name)
