"""What a network computes with units of normalised axes silenced: its LayerNorms over the units that stay.

Removing a unit of such an axis changes the statistic of the others, so the file without it does not compute
what the silenced graph does. It computes what the silenced graph does once its LayerNorms pass the unit by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.units import Groups


def normalise_kept(model: ir.Model, dense: ir.Model, groups: Groups, units: npt.NDArray[np.int64]) -> None:
    """Let every LayerNormalization of `model` go over the indices of its last axis that stay, in place.

    Args:
        model: a copy of `dense` with `units` silenced; its nodes have their names.
        dense: the model of `groups`.
        groups: its units.
        units: the classes that are cut, int64[n].
    """
    copies = {node.name: node for node in model.graph}
    for node in dense.graph:
        slots = (groups.inputs(node)[0] or [None])[-1] if node.op_type == "LayerNormalization" else None
        kept = ~np.isin(groups.labels[slots], units) if slots is not None else np.ones(1, dtype=bool)
        if not kept.all():
            _pass_by(model.graph, copies[node.name], kept)
    model.graph.sort()


def _pass_by(graph: ir.Graph, node: ir.Node, kept: npt.NDArray[np.bool_]) -> None:
    """Take what is kept, normalise it, and put it back between zeros."""
    op, old = Emitter(graph, f"{node.name}.kept"), node.outputs[0]
    indices = op.constant(np.flatnonzero(kept))
    x, *parameters = (op.Gather(value, indices, axis=-1) for value in node.inputs)
    narrow = op.node("LayerNormalization", [x, *parameters], {**node.attributes})
    whole = op.MatMul(narrow, op.constant(np.eye(len(kept), dtype=np.float32)[kept]))
    ir.convenience.replace_all_uses_with(old, whole, replace_graph_outputs=True)
    graph.remove(node, safe=True)
