"""Survey: what nobody here touches, said once per node: custom ops, training mode, quantised weights."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.comparable import trains
from onnxprune.normalise.note import Note

_QUANTISED = frozenset("DequantizeLinear QLinearConv QLinearMatMul MatMulInteger ConvInteger".split())


class Survey(ir.passes.InPlacePass):
    """Notes the nodes of the main graph that compression leaves alone; changes nothing."""

    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add a note for each such node."""
        self.notes.extend(
            Note(str(node.name), why) for node in model.graph if (why := _reason(node)) is not None
        )
        return ir.passes.PassResult(model, False)


def _reason(node: ir.Node) -> str | None:
    if node.domain:
        return f"custom op {node.domain}.{node.op_type}: kept as it is"
    if node.op_type in _QUANTISED and any(
        value is not None and value.is_initializer() for value in node.inputs[:2]
    ):
        return f"{node.op_type} of already quantised weights: kept as it is"
    if node.attributes.get_int("training_mode", 0):
        return f"{node.op_type} in training mode: kept as it is"
    if node.op_type == "Dropout" and trains(node):
        return "Dropout in training mode: kept as it is"
    return None
