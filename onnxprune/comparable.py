"""Comparable: a model whose outputs are the same at every run, and arrays.

Anything else can be pruned, but nobody could say what that did to it, nor check the file that is written.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.errors import ModelError

_RANDOM = frozenset(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)


def require_comparable(graph: ir.Graph) -> None:
    """Refuse a graph whose outputs before and after an edit cannot be compared.

    Raises:
        ModelError: an output that is no tensor of numbers, or a node that draws other numbers at every run.
    """
    for output in graph.outputs:
        if isinstance(output.type, ir.SequenceType | ir.OptionalType) or output.dtype == ir.DataType.STRING:
            raise ModelError(
                f"the output '{output.name}' ({output.type}) is no numeric tensor, so that results cannot be "
                "compared; export the model up to the tensors it is made from"
            )
    for node in graph.all_nodes():
        if _draws(node):
            raise ModelError(
                f"{node.op_type} '{node.name or node.outputs[0].name}' draws other numbers at every run, so "
                "that results cannot be compared; export the model for inference, or give the node a `seed`"
            )


def _draws(node: ir.Node) -> bool:
    if node.domain or "seed" in node.attributes:
        return False
    return node.op_type in _RANDOM or (node.op_type == "Dropout" and trains(node))


def trains(node: ir.Node) -> bool:
    """Whether a Dropout drops anything, as far as that is known."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is not None and mode.const_value is not None and bool(mode.const_value.numpy().any())
