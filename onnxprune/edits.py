"""Edits that every pass makes the same way: fresh names, new initializers, one node in the place of another.

What an edit leaves behind keeps its names: readers outside the graph (feeds, fetches, plans) go by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]


def fresh_name(graph: ir.Graph, stem: str) -> str:
    """`stem`, or with a number behind it if a value of the graph or of its subgraphs has that name."""
    taken = {value.name for value in graph.inputs}
    taken |= {name for each in (graph, *graph.subgraphs()) for name in each.initializers}
    taken |= {value.name for node in graph.all_nodes() for value in node.outputs}
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}.{number}"
    return name


def add_initializer(graph: ir.Graph, stem: str, array: Array) -> ir.Value:
    """A new initializer of `graph` that holds `array`, under `stem` or a name near it."""
    name = fresh_name(graph, stem)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(np.ascontiguousarray(array), name=name),
    )
    graph.register_initializer(value)
    return value


def set_input(node: ir.Node, index: int, array: Array, stem: str | None = None) -> ir.Value:
    """Make input `index` of `node` a constant of its own that holds `array`.

    An initializer that nobody else reads is changed where it is; otherwise a new one is added, named `stem`
    or after the old one and the node.
    """
    graph, old = node.graph, node.inputs[index] if index < len(node.inputs) else None
    assert isinstance(graph, ir.Graph)
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.tensor(np.ascontiguousarray(array), name=old.name)
        old.shape, old.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
        return old
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    plain = f"{node.name}.{index}" if old is None else f"{old.name}.{node.name}"
    value = add_initializer(graph, stem or plain, array)
    node.replace_input_with(index, value)
    return value


def take_place(new: ir.Node, *gone: ir.Node) -> None:
    """Put `new`, of one output, behind the last of the nodes `gone`, which go; it yields what that yielded.

    Args:
        new: not in a graph yet; its output takes over name, type, shape and readers.
        gone: in topological order, those before the last read by nobody else.
    """
    last = gone[-1]
    graph, old, output = last.graph, last.outputs[0], new.outputs[0]
    assert isinstance(graph, ir.Graph)
    graph.insert_after(last, new)
    output.shape, output.type = old.shape, old.type
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    output.name = old.name
    for node in reversed(gone):
        graph.remove(node, safe=True)
