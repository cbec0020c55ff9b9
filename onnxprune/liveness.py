"""Liveness: what a graph's values take in memory while it runs, by its nodes' order.

Shapes are those of two runs, on one sample and on two: a value's size is then known for any number of them.
onnxruntime fuses nodes and reuses buffers where it can, so that the figure is an upper bound of its values;
what kernels need besides, and how its memory is cut up, is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.reading import read_by
from onnxprune.session import Session

Array = npt.NDArray[Any]

#: Nodes whose output is their input's memory under another name.
_RENAMES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_NO_TENSORS = frozenset(
    ("Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap")
) | {"SplitToSequence"}
_TEXT = 64.0  # bytes of a string, at a guess


@dataclass(frozen=True)
class Liveness:
    """Bytes alive at every node: `fixed` of them and `each` for a sample."""

    fixed: npt.NDArray[np.float64]
    each: npt.NDArray[np.float64]

    def at(self, samples: int) -> int:
        """Bytes at the most while so many samples run."""
        return int((self.fixed + samples * self.each).max(initial=0.0))


def measure(model: ir.Model, runs: Sequence[Mapping[str, Array]]) -> Liveness:
    """The liveness of `model`'s values.

    Args:
        model: neither its weights nor its outputs are counted.
        runs: feeds of one sample, and of two; of one alone, all of it counts for a sample.

    Raises:
        ModelError: it does not run.
    """
    sums = set(model.graph.outputs)
    values = [
        value for node in model.graph for value in node.outputs if _is_tensor(value) and value not in sums
    ]
    sizes = [_sizes(model, values, feeds) for feeds in runs]
    one, two = sizes[0], sizes[-1]
    each = {name: max(0.0, two[name] - one[name]) if len(sizes) > 1 else one[name] for name in one}
    fixed = {name: one[name] - each[name] for name in one}
    return Liveness(*(_alive(model.graph, size) for size in (fixed, each)))


def _alive(graph: ir.Graph, size: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Bytes alive at every node."""
    order = list(graph)
    same = {node.outputs[0]: node.inputs[0] for node in order if node.op_type in _RENAMES}
    last: dict[ir.Value, int] = {}
    reads = [(value, place) for place, node in enumerate(order) for value in read_by(node)]
    for read, place in reads:
        value: ir.Value | None = read
        while value is not None:
            last[value] = max(place, last.get(value, 0))
            value = same.get(value)
    change = np.zeros(len(order) + 2)
    for place, node in enumerate(order):
        for made in node.outputs:
            if made not in same:
                own = size.get(made.name or "", 0.0)
                change[place] += own
                change[last.get(made, place) + 1] -= own
    return np.cumsum(change)


def _sizes(model: ir.Model, values: Sequence[ir.Value], feeds: Mapping[str, Array]) -> dict[str, float]:
    twin = model.clone()
    here = ir.convenience.create_value_mapping(twin.graph, include_subgraphs=False)
    op = Emitter(twin.graph, "liveness")
    twin.graph.outputs.clear()
    names = []
    for value in reversed(values):  # onnxruntime looks for what leads to the last node first: nothing is kept
        shape = op.Shape(here[value.name or ""])
        shape.dtype = ir.DataType.INT64
        twin.graph.outputs.append(shape)
        names.append(shape.name or "")
    found = Session(twin, "cpu", lean=True).run(feeds)
    return {
        value.name or "": float(prod(found[name].tolist())) * _width(value)
        for value, name in zip(reversed(values), names, strict=True)
    }


def _is_tensor(value: ir.Value) -> bool:
    node = value.producer()
    unknown = value.type is None and not (node is not None and node.op_type in _NO_TENSORS)
    return bool(value.name) and (unknown or isinstance(value.type, ir.TensorType))


def _width(value: ir.Value) -> float:
    if value.dtype is None:
        return 4.0
    return _TEXT if value.dtype == ir.DataType.STRING else value.dtype.itemsize
