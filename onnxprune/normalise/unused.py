"""Unused: nodes whose results nobody reads and initializers nobody names are dropped.

A node with a subgraph goes like any other; what a subgraph captures counts as read. Inputs and outputs stay.
"""

from __future__ import annotations

import onnx_ir as ir


class RemoveUnused(ir.passes.InPlacePass):
    """Removes dead nodes and initializers of the main graph; names and the interface stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove in reverse order, so that one walk suffices."""
        graph = model.graph
        before = len(graph) + len(graph.initializers)
        for node in reversed(list(graph)):
            if all(not output.uses() and not output.is_graph_output() for output in node.outputs):
                graph.remove(node, safe=True)
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]
        return ir.passes.PassResult(model, len(graph) + len(graph.initializers) != before)
