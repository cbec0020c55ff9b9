"""Inputs: graph inputs that have a default value become plain initializers; negative sizes become symbols."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.normalise.note import Note

_FIRST_IR_WITHOUT_DEFAULTS_AS_INPUTS = 4  # before, every initializer had to be listed as an input


class InitializersAreNotInputs(ir.passes.InPlacePass):
    """Takes initializers off the input list: a weight that a caller may replace cannot be compressed."""

    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove every input that is an initializer; noted where the file's IR version made it optional."""
        graph = model.graph
        defaults = [value for value in graph.inputs if value.is_initializer()]
        for value in defaults:
            graph.inputs.remove(value)
            if model.ir_version >= _FIRST_IR_WITHOUT_DEFAULTS_AS_INPUTS:
                self.notes.append(
                    Note(str(value.name), "input with a default value: now a plain initializer")
                )
        model.ir_version = max(model.ir_version, _FIRST_IR_WITHOUT_DEFAULTS_AS_INPUTS)
        return ir.passes.PassResult(model, bool(defaults))


class NegativeSizesAreUnknown(ir.passes.InPlacePass):
    """Reads an axis of size −1, which some exporters write for "any", as the unnamed symbol it means."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace negative sizes on inputs, outputs and every annotated value of the main graph."""
        modified = False
        produced = (output for node in model.graph for output in node.outputs)
        for value in (*model.graph.inputs, *model.graph.outputs, *produced):
            if value.shape is None or not any(isinstance(size, int) and size < 0 for size in value.shape):
                continue
            sizes = [None if isinstance(size, int) and size < 0 else size for size in value.shape]
            value.shape = ir.Shape(sizes)
            modified = True
        return ir.passes.PassResult(model, modified)
