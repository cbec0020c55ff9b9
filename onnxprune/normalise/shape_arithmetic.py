"""Shape arithmetic: which entries of an integer tensor are known because the axes they measure are static.

`known_integers` follows Shape through the ops exporters put behind it. Entries are Python ints, or None where
an axis is dynamic: ``Gather(Shape(x), 1)`` of x: [batch, 3, 32, 32] is 3, although Shape(x) itself is not
constant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Integers = npt.NDArray[np.object_]  # of int | None, any shape

_DEPTH = 16  # exporters chain a handful of these; a bound keeps the walk linear
_SIZE = 64  # entries; longer integer tensors are data, not shapes


def known_integers(value: ir.Value | None, depth: int = _DEPTH) -> Integers | None:
    """The entries of `value`, or None when it is not shape arithmetic."""
    if value is None or depth == 0:
        return None
    if value.is_initializer():
        return _constant(value)
    node = value.producer()
    if node is None or node.domain or node.op_type not in _RULES:
        return None
    return _RULES[node.op_type](node, depth - 1)


def _constant(value: ir.Value) -> Integers | None:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32) or tensor.size > _SIZE:
        return None
    return np.array(tensor.numpy().tolist(), dtype=object)


def _shape(node: ir.Node, depth: int) -> Integers | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in shape]
    start = node.attributes.get_int("start", 0)
    return np.array(sizes, dtype=object)[start : node.attributes.get_int("end", len(sizes))]


def _cast(node: ir.Node, depth: int) -> Integers | None:
    if node.attributes.get_int("to", 0) not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return known_integers(node.inputs[0], depth)


def _gather(node: ir.Node, depth: int) -> Integers | None:
    data, indices = _operands(node, depth) or (None, None)
    if data is None or indices is None or None in indices.reshape(-1) or data.ndim != 1:
        return None
    return np.asarray(np.take(data, indices.astype(np.int64)), dtype=object)


def _slice(node: ir.Node, depth: int) -> Integers | None:
    data, *bounds = _operands(node, depth) or (None,)
    if data is None or data.ndim != 1 or any(None in bound for bound in bounds):
        return None
    start, end = int(bounds[0][0]), int(bounds[1][0])
    step = int(bounds[3][0]) if len(bounds) > 3 else 1
    return data[start:end:step] if step > 0 else None


def _concat(node: ir.Node, depth: int) -> Integers | None:
    parts = _operands(node, depth)
    if parts is None or any(part.ndim != 1 for part in parts) or sum(part.size for part in parts) > _SIZE:
        return None
    return np.concatenate(parts)


def _unsqueeze(node: ir.Node, depth: int) -> Integers | None:
    data = known_integers(node.inputs[0], depth)
    return data.reshape(1) if data is not None and data.ndim == 0 else None


def _squeeze(node: ir.Node, depth: int) -> Integers | None:
    data = known_integers(node.inputs[0], depth)
    return data.reshape(()) if data is not None and data.shape == (1,) else None


def _operands(node: ir.Node, depth: int) -> list[Integers] | None:
    """All of them, or None at the first that is not known: a Concat of doubles is a tree of 2^depth."""
    found = []
    for value in node.inputs:
        known = known_integers(value, depth)
        if known is None:
            return None
        found.append(known)
    return found


_RULES: dict[str, Callable[[ir.Node, int], Integers | None]] = {
    "Shape": _shape,
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
}
