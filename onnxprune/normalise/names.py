"""Names: every node of the main graph gets a unique name; values have one in any valid file.

Existing names are kept. Outputs a node leaves out carry the empty name in ONNX and keep it. Node names in
subgraphs are left alone but never reused.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import onnx_ir as ir


class UniqueNodeNames(ir.passes.InPlacePass):
    """Names unnamed nodes `<op type>_<number>` and gives later duplicates a numbered name."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename where needed; the first node of a name keeps it."""
        taken = {node.name for graph in model.graph.subgraphs() for node in graph if node.name}
        taken |= {node.name for node in model.graph if node.name}
        seen: set[str] = set()
        numbered: dict[str, Iterator[str]] = {}  # of each stem, so that no number is tried twice
        modified = False
        for node in model.graph:
            if not node.name or node.name in seen:
                stem = node.name or node.op_type
                names = numbered.setdefault(stem, _numbered(stem))
                node.name = next(name for name in names if name not in taken)
                modified = True
            taken.add(node.name)
            seen.add(node.name)
        return ir.passes.PassResult(model, modified)


def _numbered(stem: str) -> Iterator[str]:
    return (f"{stem}_{number}" for number in count(1))
