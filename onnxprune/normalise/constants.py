"""Constants: Constant nodes of the main graph become initializers of the same name.

Subgraphs are left as they are; what they capture keeps its name and stays alive. Sparse values are gone by
then (`sparse.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError

_TENSOR_OF: dict[str, Callable[[ir.Attr], Any]] = {
    "value": lambda attribute: attribute.as_tensor(),
    "value_int": lambda attribute: ir.tensor(np.array(attribute.as_int(), dtype=np.int64)),
    "value_ints": lambda attribute: ir.tensor(np.array(attribute.as_ints(), dtype=np.int64)),
    "value_float": lambda attribute: ir.tensor(np.array(attribute.as_float(), dtype=np.float32)),
    "value_floats": lambda attribute: ir.tensor(np.array(attribute.as_floats(), dtype=np.float32)),
    "value_string": lambda attribute: ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([])),
    "value_strings": lambda attribute: ir.StringTensor([s.encode() for s in attribute.as_strings()]),
}


class LiftConstants(ir.passes.InPlacePass):
    """Turns every Constant node of the main graph into an initializer."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lift them all, graph outputs included: ONNX allows an initializer as an output.

        Raises:
            ModelError: a Constant without exactly one value attribute of a known kind.
        """
        graph = model.graph
        constants = [node for node in graph if node.op_type == "Constant" and not node.domain]
        for node in constants:
            replace_by_initializer(graph, node.outputs[0], _tensor(node))
        return ir.passes.PassResult(model, bool(constants))


def replace_by_initializer(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
    """Make `value`, the only output of its node, an initializer of the same name, and drop the node."""
    node, name = value.producer(), value.name
    assert node is not None and name is not None  # the caller found `value` on a node; names are fixed first
    tensor.name = name
    initializer = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    value.replace_all_uses_with(initializer, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    graph.register_initializer(initializer)
    return initializer


def _tensor(node: ir.Node) -> ir.TensorProtocol:
    known = [(key, attribute) for key, attribute in node.attributes.items() if key in _TENSOR_OF]
    if len(known) != 1:
        found = ", ".join(node.attributes) or "nothing"
        raise ModelError(
            f"Constant node {node.name!r} holds {found} instead of one dense value; "
            "write its value as a plain tensor"
        )
    key, attribute = known[0]
    tensor: ir.TensorProtocol = _TENSOR_OF[key](attribute)
    return tensor
