"""Shapes: onnx's shape inference merged into the graph, helped where a Reshape's sizes are only partly known.

Declared inputs stay as they are, outputs too unless they contradict what is inferred: exporters write wrong
sizes there, and onnxruntime, which shrugs at that, fails where something is computed from such an output.
Symbolic axes keep their names, unknown ones get one.
"""

from __future__ import annotations

import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.normalise.note import Note
from onnxprune.normalise.shape_arithmetic import known_integers
from onnxprune.normalise.weightless import weightless

_KEEP_VALUES = frozenset("Add Cast Gather Identity Mul Slice Squeeze Sub Unsqueeze".split())
_MOST_VALUES = 2**20  # a hundred megabytes
_SIZES_INPUT = {"Reshape": 1, "ConstantOfShape": 0}  # op → which operand lists the output's sizes


class InferShapes(ir.passes.InPlacePass):
    """Annotates every value of the main graph with the type and shape that can be inferred.

    What was annotated before is forgotten: an exporter's stale annotation would otherwise win over the truth.
    """

    def __init__(self, notes: list[Note], strict: bool = False) -> None:
        self.notes, self.strict = notes, strict

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Infer until nothing new is learnt.

        Raises:
            ModelError: if `strict`, shapes or types contradict each other; names the node. Of models with
                custom ops too little is known for that: where onnx fails, a note says so.
        """
        proto, _ = weightless(model)
        standard = all(not node.domain for node in model.graph.all_nodes())
        if standard:  # a custom op's annotation is all anybody knows of it
            del proto.graph.value_info[:]
        for output in proto.graph.output:
            if output.type.WhichOneof("value") == "tensor_type":
                output.type.tensor_type.ClearField("shape")
        how = {"data_prop": _values_stay_small(model.graph), "strict_mode": self.strict and standard}
        modified, hints = False, {value.name for value in proto.graph.value_info}
        while True:
            try:
                inferred = onnx.shape_inference.infer_shapes(proto, **how)
            except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
                reason = " ".join(str(error).split())
                if how["strict_mode"]:
                    raise ModelError(f"is not a valid ONNX model: {reason}; export it again") from error
                self.notes.append(Note(str(model.graph.name), f"shape inference failed: {reason}"))
                return ir.passes.PassResult(model, modified)
            modified |= _merge(model.graph, inferred) | self._correct(model.graph, inferred)
            learnt = [value for value in _partly_known(model.graph) if value.name not in hints]
            if not learnt:
                return ir.passes.PassResult(model, modified)
            how["strict_mode"] = False  # hints say less than onnx might
            hints |= {value.name for value in learnt}
            proto.graph.value_info.extend(learnt)

    def _correct(self, graph: ir.Graph, inferred: onnx.ModelProto) -> bool:
        wrong = False
        for value, output in zip(graph.outputs, inferred.graph.output, strict=True):
            shape = ir.from_proto(output).shape
            if shape is None or value.shape is None or _agree(shape, value.shape):
                continue
            self.notes.append(Note(str(value.name), f"output of shape {shape}, declared as {value.shape}"))
            value.shape, wrong = shape, True
        return wrong


def _values_stay_small(graph: ir.Graph) -> bool:
    """Whether onnx may follow values through shape arithmetic: it does so whatever they grow to."""
    sizes = {value: _length(value) for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        known = [sizes.get(value, 1) for value in node.inputs if value is not None]
        joins = node.op_type == "Concat"
        made = sum(known) if joins else max(known, default=1) if node.op_type in _KEEP_VALUES else 1
        if joins and made > _MOST_VALUES:
            return False
        sizes |= {value: max(made, _length(value)) for value in node.outputs}
    return True


def _length(value: ir.Value) -> int:
    """Of a list; 1 for anything else, which onnx does not follow."""
    shape = value.shape
    return shape[0] if shape is not None and len(shape) == 1 and isinstance(shape[0], int) else 1


def _agree(one: ir.Shape, other: ir.Shape) -> bool:
    return len(one) == len(other) and all(
        not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in zip(one, other, strict=True)
    )


def _merge(graph: ir.Graph, inferred: onnx.ModelProto) -> bool:
    known = {value.name: value for value in inferred.graph.value_info}
    modified = False
    for node in graph:
        for value in node.outputs:
            found = known.get(value.name or "")
            if found is None or value.is_graph_output():
                continue
            annotation = ir.from_proto(found)
            modified |= (value.type, value.shape) != (annotation.type, annotation.shape)
            value.type, value.shape = annotation.type, annotation.shape
    return modified


def _partly_known(graph: ir.Graph) -> list[onnx.ValueInfoProto]:
    """Annotations onnx cannot make: sizes computed at run time of which number and some are known."""
    found = []
    for node in graph:
        value = node.outputs[0] if node.op_type in _SIZES_INPUT and not node.domain else None
        if value is None or value.shape is not None or value.is_graph_output():
            continue
        sizes, dtype = known_integers(node.inputs[_SIZES_INPUT[node.op_type]]), _dtype(node)
        if sizes is None or sizes.ndim != 1 or dtype is None:
            continue
        dims = [
            size if size is not None and size > 0 else None for size in sizes
        ]  # 0 and -1: worked out at run time
        found.append(onnx.helper.make_tensor_value_info(str(value.name), dtype, dims))
    return found


def _dtype(node: ir.Node) -> int | None:
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get_tensor("value", None)
        return int(fill.dtype) if fill is not None else int(ir.DataType.FLOAT)
    data = node.inputs[0]
    return None if data is None or data.dtype is None else int(data.dtype)
