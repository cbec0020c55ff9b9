"""Packing: a sparse weight becomes gaps (uint8) and values (fp32 or fp16) plus standard ops that rebuild it.

The nodes are those `normalise/packed.py` draws. `gaps[i]` is the distance from the previous stored entry of
the flattened weight (the first: from entry 0); a distance above 255 is bridged by stored zeros. Any runtime
reads the result; onnxruntime folds it at load, and what then runs is the dense graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.normalise.note import Note
from onnxprune.normalise.packed import UnpackWeights
from onnxprune.normalise.unused import RemoveUnused

Values = Literal["fp32", "fp16"]
Array = npt.NDArray[Any]

_MAX_GAP = 255  # uint8
_PACKABLE = {
    ir.DataType.FLOAT16: 2,
    ir.DataType.FLOAT: 4,
    ir.DataType.DOUBLE: 8,
}  # onnxruntime's ConstantOfShape
_MIN_BYTES = 1024  # below, the rebuilding nodes weigh more than any saving


@dataclass
class PackResult:
    """`packed`: bytes saved by weight name; `skipped`: the sparse weights left dense, and why."""

    model: ir.Model
    packed: dict[str, int] = field(default_factory=dict)
    skipped: list[Note] = field(default_factory=list)

    @property
    def saved(self) -> int:
        """Bytes by which the file shrinks."""
        return sum(self.packed.values())


def pack(model: ir.Model, values: Values = "fp32") -> PackResult:
    """Pack, in place, every initializer of the main graph that gets smaller by it.

    With `fp32` every value keeps its dtype and the weight is exact; `fp16` rounds values to half precision
    and leaves out weights whose values overflow it.
    """
    result = PackResult(model)
    for name, initializer in list(model.graph.initializers.items()):
        tensor = initializer.const_value
        if tensor is None or tensor.dtype not in _PACKABLE or tensor.nbytes < _MIN_BYTES:
            continue
        weight = tensor.numpy()
        if 2 * np.count_nonzero(weight) > weight.size:
            continue  # not sparse: 5 bytes a value cannot beat 4, nor 3 bytes 2
        if initializer.is_graph_output():
            result.skipped.append(Note(name, "is an output of the model"))
            continue
        gaps, kept = encode(weight)
        if values == "fp16":
            half = (
                kept.astype(np.float16) if np.abs(kept).max(initial=0) <= np.finfo(np.float16).max else None
            )
            if half is None:
                result.skipped.append(Note(name, "has values beyond the range of fp16; pack it as fp32"))
                continue
            kept = half
        saved = _rebuild(model.graph, initializer, gaps, kept)
        if saved > 0:
            result.packed[name] = saved
        else:
            result.skipped.append(Note(name, "would not get smaller"))
    return result


def unpack(model: ir.Model) -> ir.Model:
    """Make every packed weight of the main graph dense again, in place; fp16 values stay rounded."""
    return RemoveUnused()(UnpackWeights()(model)).model


def encode(weight: Array) -> tuple[npt.NDArray[np.uint8], Array]:
    """Gaps, uint8 [n], and values, [n], of the flattened `weight`; n ≥ its number of non-zeros.

    The inverse is ``dense.flat[cumsum(gaps)] = values``.
    """
    flat = weight.reshape(-1)
    positions = np.flatnonzero(flat)
    distances = np.diff(positions, prepend=0)
    bridges = np.maximum(distances - 1, 0) // _MAX_GAP  # stored zeros before each entry
    entries = np.arange(len(positions)) + np.cumsum(bridges)
    gaps = np.full(len(positions) + int(bridges.sum()), _MAX_GAP, dtype=np.uint8)
    gaps[entries] = distances - _MAX_GAP * bridges
    values = np.zeros(len(gaps), dtype=weight.dtype)
    values[entries] = flat[positions]
    return gaps, values


def _rebuild(graph: ir.Graph, weight: ir.Value, gaps: npt.NDArray[np.uint8], values: Array) -> int:
    """Put the packed form in the place of `weight`; the bytes saved, 0 where nothing was done."""
    tensor, name = weight.const_value, weight.name
    assert tensor is not None and name is not None  # `pack` picked it by both
    scratch = ir.Graph([], [], nodes=[], opset_imports=graph.opset_imports, name="packed")
    op = Emitter(scratch, prefix=name)
    positions = op.CumSum(op.Cast(op.constant(gaps), to=ir.DataType.INT64), op.constant(0, np.int64))
    kept = op.constant(values)
    if values.dtype != tensor.dtype.numpy():
        kept = op.Cast(kept, to=tensor.dtype)
    zeros = op.ConstantOfShape(op.ints(tensor.size), value=ir.tensor(np.zeros(1, tensor.dtype.numpy())))
    flat = op.ScatterElements(zeros, positions, kept, axis=0)
    rebuilt = op.Reshape(flat, op.ints(*tensor.shape.numpy()))
    rebuilt.name = name
    saved = _bytes(ir.to_proto(tensor)) - _bytes_of(scratch)
    if saved <= 0:
        return 0
    _move(scratch, graph)
    weight.replace_all_uses_with(rebuilt)
    del graph.initializers[name]
    rebuilt.type, rebuilt.shape = weight.type, ir.Shape(tensor.shape.numpy())
    return saved


def _move(scratch: ir.Graph, graph: ir.Graph) -> None:
    """Move the nodes and initializers of `scratch` to the front of `graph`."""
    first = graph[0] if len(graph) else None
    nodes: Sequence[ir.Node] = list(scratch)
    scratch.remove(nodes)
    for key, value in list(scratch.initializers.items()):
        del scratch.initializers[key]
        graph.register_initializer(value)
    if first is None:
        graph.extend(nodes)
    else:
        graph.insert_before(first, nodes)


def _bytes_of(scratch: ir.Graph) -> int:
    tensors = (value.const_value for value in scratch.initializers.values() if value.const_value is not None)
    return sum(_bytes(ir.to_proto(part)) for part in (*tensors, *scratch))


def _bytes(message: Any) -> int:
    """Bytes of a protobuf message as a repeated field: its content, its length and its tag."""
    size = int(message.ByteSize())
    return size + max(1, -(-size.bit_length() // 7)) + 1
