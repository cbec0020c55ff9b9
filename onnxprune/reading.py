"""What a node reads, and what a value depends on; subgraphs read what they capture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir


def read_by(node: ir.Node) -> Iterator[ir.Value]:
    """Values `node` reads: its inputs, and outer values captured by its subgraphs."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            yield from _captured(attribute.as_graph())
        elif attribute.type is ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                yield from _captured(graph)


def _captured(graph: ir.Graph) -> Iterator[ir.Value]:
    own = {*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)}
    inside = [value for node in graph for value in read_by(node)]
    yield from (value for value in [*inside, *graph.outputs] if value not in own)


def ancestors(
    wanted: Iterable[ir.Value], stop: set[ir.Node] | frozenset[ir.Node] = frozenset()
) -> set[ir.Node]:
    """All nodes that `wanted` depend on, not going through the nodes in `stop`."""
    found: set[ir.Node] = set()
    stack = [value.producer() for value in wanted]
    while stack:
        node = stack.pop()
        if node is None or node in found or node in stop:
            continue
        found.add(node)
        stack.extend(value.producer() for value in read_by(node))
    return found
