"""Old meanings: what onnx's version converter leaves to new defaults, written out, and what it cannot say.

*Measured* against onnxruntime, onnx 1.23: Resize before opset 11 (and Upsample, which becomes Resize) samples
at x / scale, RoiAlign before 16 without the half-pixel shift, Softmax and Hardmax before 13 flatten at their
axis, Scan before 9 has a batch axis.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.errors import ModelError

_BATCHED_SCAN_UNTIL = 9
_RESIZE_CHANGED, _SOFTMAX_CHANGED, _ROI_ALIGN_CHANGED = 11, 13, 16


def prepare(graph: ir.Graph, version: int) -> None:
    """Before conversion: write axis −1 on every Softmax over the last axis.

    There the old meaning is today's, but the converter would write Shape, Flatten and Reshape around it.

    Raises:
        ModelError: a Scan of opset 8 or a Hardmax over several axes, which the converter gets wrong silently.
    """
    for node in graph.all_nodes():
        if node.domain:
            continue
        if node.op_type == "Scan" and version < _BATCHED_SCAN_UNTIL:
            raise _refusal(node, version, "has a batch axis that later ones lack")
        if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and version < _SOFTMAX_CHANGED:
            shape = node.inputs[0].shape if node.inputs[0] is not None else None
            if shape is not None and node.attributes.get_int("axis", 1) in (-1, shape.rank() - 1):
                node.attributes["axis"] = ir.AttrInt64("axis", -1)
            elif node.op_type == "Hardmax":
                raise _refusal(node, version, "works on several axes at once, as later ones do not")


def _refusal(node: ir.Node, version: int, reason: str) -> ModelError:
    return ModelError(
        f"{node.op_type} {node.name!r} of opset {version} {reason}; export the model with opset 13 or newer"
    )


def repair(graph: ir.Graph, version: int) -> None:
    """After conversion from `version`: say in attributes what used to go without saying."""
    for node in graph.all_nodes():
        if node.domain:
            continue
        if node.op_type == "Resize" and version < _RESIZE_CHANGED:
            _set(node, coordinate_transformation_mode="asymmetric", nearest_mode=_old_rounding(node))
        if node.op_type == "RoiAlign" and version < _ROI_ALIGN_CHANGED:
            _set(node, coordinate_transformation_mode="output_half_pixel")


def _old_rounding(node: ir.Node) -> str:
    """Nearest sampling as onnxruntime always read it: down when enlarging, up when shrinking."""
    scales = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] is not None else None
    return "ceil" if scales is not None and (scales.numpy() < 1).any() else "floor"


def _set(node: ir.Node, **attributes: str) -> None:
    for name, text in attributes.items():
        node.attributes[name] = ir.AttrString(name, text)
