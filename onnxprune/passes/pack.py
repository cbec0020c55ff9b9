"""Packing: a sparse weight becomes gaps (uint8) and values plus standard ops that rebuild it.

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
import onnx
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.normalise.note import Note
from onnxprune.normalise.packed import UnpackWeights
from onnxprune.normalise.unused import RemoveUnused

Values = Literal["fp32", "fp16"]
Array = npt.NDArray[Any]

_MAX_GAP = 255  # uint8
_FLOATS = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)  # of onnxruntime's ConstantOfShape
_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)  # what quantisers make of weights
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
    """Pack, in place, every pruned weight of the main graph that gets smaller by it.

    With `fp32` every value keeps its dtype and the weight is exact; `fp16` rounds floats to half precision
    and leaves out weights whose values overflow it. Tensors without a zero were not pruned and stay; so do
    quantised ones of which packing makes nothing smaller, without a word: rounding leaves zeros in all.
    """
    result = PackResult(model)
    for name, initializer in list(model.graph.initializers.items()):
        tensor = initializer.const_value
        if tensor is None or tensor.dtype not in (*_FLOATS, *_INTEGERS) or tensor.nbytes < _MIN_BYTES:
            continue
        weight = tensor.numpy()
        if weight.all():
            continue
        real = tensor.dtype in _FLOATS
        dtype = np.dtype(np.float16) if real and values == "fp16" else weight.dtype
        saved = 0
        if initializer.is_graph_output():
            reason = "is an output of the model"
        elif real and not np.abs(weight).max() <= np.finfo(dtype).max:  # so that NaN is skipped
            reason = f"has values beyond the range of {dtype}"
        else:
            saved = _replace(model.graph, initializer, _smallest(model.graph, name, weight, dtype))
            reason = "would not get smaller"
        if saved:
            result.packed[name] = saved
        elif real:
            result.skipped.append(Note(name, reason))
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


def _smallest(graph: ir.Graph, name: str, weight: Array, dtype: np.dtype[Any]) -> ir.Graph:
    """The form of `weight` with the fewest bytes, as a graph of its own whose last value is `name`."""
    forms = [_scattered] if weight.dtype == dtype else [_scattered, _narrowed]
    scratches = []
    for form in forms:
        scratch = ir.Graph([], [], nodes=[], opset_imports=graph.opset_imports, name="packed")
        rebuilt = form(Emitter(scratch, prefix=_prefix(graph, name)), weight, dtype)
        rebuilt.name = name
        scratches.append(scratch)
    return min(scratches, key=_bytes_of)


def _scattered(op: Emitter, weight: Array, dtype: np.dtype[Any]) -> ir.Value:
    """Gaps and values, scattered into zeros."""
    gaps, values = encode(weight)
    full = ir.DataType.from_numpy(weight.dtype)
    positions = op.CumSum(op.Cast(op.constant(gaps), to=ir.DataType.INT64), op.constant(0, np.int64))
    kept = op.constant(values.astype(dtype))
    if weight.dtype != dtype:
        kept = op.Cast(kept, to=full)
    zeros = op.ConstantOfShape(op.ints(weight.size), value=ir.tensor(np.zeros(1, weight.dtype)))
    flat = op.ScatterElements(zeros, positions, kept, axis=0)
    rebuilt: ir.Value = op.Reshape(flat, op.ints(*weight.shape))
    return rebuilt


def _narrowed(op: Emitter, weight: Array, dtype: np.dtype[Any]) -> ir.Value:
    """Every entry, in fewer bytes: the smaller form of a weight of which most is kept."""
    rebuilt: ir.Value = op.Cast(op.constant(weight.astype(dtype)), to=ir.DataType.from_numpy(weight.dtype))
    return rebuilt


def _replace(graph: ir.Graph, weight: ir.Value, scratch: ir.Graph) -> int:
    """Put the packed form in the place of `weight`; the bytes saved, 0 where it stays as it is."""
    tensor, name = weight.const_value, weight.name
    assert tensor is not None and name is not None  # `pack` picked it by both
    saved = _bytes_of_tensor(tensor) - _bytes_of(scratch)
    if saved <= 0:
        return 0
    rebuilt = scratch[-1].outputs[0]
    _move(scratch, graph)
    weight.replace_all_uses_with(rebuilt)
    del graph.initializers[name]
    rebuilt.type, rebuilt.shape = weight.type, ir.Shape(tensor.shape.numpy())
    return saved


def _prefix(graph: ir.Graph, name: str) -> str:
    """A prefix for new names, `name` itself unless the graph has names below it."""
    taken = {*graph.initializers, *(value.name or "" for node in graph.all_nodes() for value in node.outputs)}
    prefix = name
    while any(other.startswith(f"{prefix}/") for other in taken):
        prefix += "_"
    return prefix


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
    nodes = (int(ir.to_proto(node).ByteSize()) for node in scratch)
    return sum(map(_bytes_of_tensor, tensors)) + sum(map(_framed, nodes))


def _bytes_of_tensor(tensor: ir.TensorProtocol) -> int:
    """Bytes in the file; counted, since gigabytes cannot be serialised only to be measured."""
    empty = onnx.TensorProto(
        name=tensor.name or "", dims=tensor.shape.numpy(), data_type=int(tensor.dtype)
    ).ByteSize()
    return _framed(int(empty) + _framed(tensor.nbytes))


def _framed(size: int) -> int:
    """Bytes of so many as a field of a message: themselves, their number and a tag."""
    return size + max(1, -(-size.bit_length() // 7)) + 1
