"""Folding: whatever does not depend on the model's inputs is computed once and becomes an initializer.

Weights behind Identity, Cast, Transpose, Reshape, Squeeze … come out as plain weights, and the Shape → Gather
→ Concat clutter of exporters as plain integers wherever the axes asked for are static. Left in place: random
ops, ops with subgraphs, custom domains, anything near quantised weights, graph outputs, and tensors that
would outgrow their operands by more than a small factor.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx.reference.ops
import onnx_ir as ir

from onnxprune.normalise.constants import replace_by_initializer
from onnxprune.normalise.note import Note
from onnxprune.normalise.shape_arithmetic import known_integers

Array = npt.NDArray[Any]

_NEVER = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial Dropout "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split()
)
_GROWTH, _ALLOWANCE = 4, 2**20  # a float64 Cast of float16 weights is fourfold; 1 MiB covers index clutter
_TIMES, _ROOM = 8, 2**22  # of all nodes together: exporters put a few ops behind each other


class FoldConstants(ir.passes.InPlacePass):
    """Replaces every computable one-output node of the main graph by an initializer of the same name."""

    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes
        self._room: int | None = None  # bytes that may still be made, however often the graph is walked

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in one walk; needs inferred shapes, so that nothing huge is ever computed."""
        opset = model.graph.opset_imports.get("", 0)
        room = _ROOM + _TIMES * _bytes_of(model.graph) if self._room is None else self._room
        modified = False
        for node in list(model.graph):
            array = self._value_of(node, opset, room)
            if array is not None:
                room -= array.nbytes
                replace_by_initializer(model.graph, node.outputs[0], ir.tensor(array))
                modified = True
        self._room = room
        return ir.passes.PassResult(model, modified)

    def _value_of(self, node: ir.Node, opset: int, room: int) -> Array | None:
        if node.domain or node.op_type in _NEVER or len(node.outputs) != 1:
            return None
        output = node.outputs[0]
        if output.is_graph_output():
            return None
        integers = known_integers(output)
        if integers is not None and None not in integers.reshape(-1):
            return integers.astype(output.dtype.numpy() if output.dtype else np.int64)
        if not _is_foldable(node, room):
            return None
        return self._evaluate(node, opset)

    def _evaluate(self, node: ir.Node, opset: int) -> Array | None:
        tensors = [None if value is None else value.const_value for value in node.inputs]
        operands = [None if tensor is None else tensor.numpy() for tensor in tensors]
        attributes = {key: _python(attribute) for key, attribute in node.attributes.items()}
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):  # 1/0 is the model's own business
                warnings.simplefilter("ignore")
                operator = onnx.reference.ops.load_op("", node.op_type, opset)
                result = operator.eval(*operands, **attributes)
        except Exception as error:  # the reference ops raise whatever numpy does; the node simply stays
            reason = " ".join(str(error).split())
            self._note(node, f"{node.op_type} of constants not folded: {reason}")
            return None
        array = np.asarray(result[0] if isinstance(result, tuple) else result)
        expected = node.outputs[0]
        if expected.dtype is not None and ir.DataType.from_numpy(array.dtype) != expected.dtype:
            array = array.astype(expected.dtype.numpy())
        return array

    def _note(self, node: ir.Node, reason: str) -> None:
        note = Note(str(node.name), reason)
        if note not in self.notes:
            self.notes.append(note)


def _bytes_of(graph: ir.Graph) -> int:
    tensors = (value.const_value for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _is_foldable(node: ir.Node, room: int) -> bool:
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    ):
        return False
    tensors = [
        value.const_value if value.is_initializer() else None for value in node.inputs if value is not None
    ]
    if any(tensor is None or tensor.dtype == ir.DataType.STRING for tensor in tensors):
        return False
    output = node.outputs[0]
    if output.shape is None or output.dtype is None or not output.shape.is_static():
        return False
    given = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    made = int(np.prod(output.shape.numpy(), dtype=object)) * output.dtype.itemsize
    return bool(made <= min(_GROWTH * given + _ALLOWANCE, room))


def _python(attribute: ir.Attr) -> Any:
    """The attribute as onnx's reference ops take it."""
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.to_proto(attribute.as_tensor())
    return attribute.value
