"""Shapes: onnx's shape inference, its results merged into the graph; declared inputs and outputs stay as they are."""

from __future__ import annotations

import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnxprune.normalise.note import Note
from onnxprune.normalise.weightless import weightless


class InferShapes(ir.passes.InPlacePass):
    """Annotates every value of the main graph with the type and shape that onnx can infer.

    Symbolic axes keep their names, unknown ones get one. What was annotated before is forgotten first: an
    exporter's stale annotation would otherwise win over the truth.
    """

    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Infer with data propagation; if onnx fails, the model keeps its annotations and a note says so."""
        proto, _ = weightless(model)
        standard = all(not node.domain for node in proto.graph.node)
        if standard:  # a custom op's annotation is all that anybody knows of it
            del proto.graph.value_info[:]
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
            reason = " ".join(str(error).split())
            self.notes.append(Note(str(model.graph.name), f"shape inference failed: {reason}"))
            return ir.passes.PassResult(model, False)
        known = {value.name: value for value in inferred.graph.value_info}
        modified = False
        for node in model.graph:
            for value in node.outputs:
                found = known.get(value.name or "")
                if found is None or value.is_graph_output():
                    continue
                annotation = ir.from_proto(found)
                modified |= (value.type, value.shape) != (annotation.type, annotation.shape)
                value.type, value.shape = annotation.type, annotation.shape
        return ir.passes.PassResult(model, modified)
