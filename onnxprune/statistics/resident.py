"""Resident sums: added up where they are made, and brought to the host once.

On a GPU the sums of a batch are dearer to copy than to make: a gram of 4,608 columns is 85 MB. So the graph
takes the totals so far as inputs, in float64, and gives the new ones; only counts and kept rows leave the
device with each batch. That is for averages in which every batch counts alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.session import OnDevice, Provider, Session
from onnxprune.statistics.graph import expose

Array = npt.NDArray[Any]

_TOTAL = "total/"
_ADDED = ("sum", "gram", "products", "gradient")  # the outputs that add up, before the slash


@dataclass
class Resident:
    """A session whose sums stay on its device; `totals` are those of all batches, by output."""

    session: Session
    totals: dict[str, OnDevice] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model, provider: Provider, threads: int = 0) -> Resident:
        """Make the sums of a statistics graph add up in it, and load it."""
        sums = _accumulate(model.graph)
        resident = cls(Session(model, provider, threads=threads))
        resident._empty(sums)
        return resident

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; what it made besides the sums.

        Raises:
            ModelError: a node failed.
        """
        held = {_TOTAL + name: value for name, value in self.totals.items()}
        made, self.totals = self.session.run_held(feeds, held, list(self.totals))
        return made

    def flush(self) -> dict[str, Array]:
        """The sums of all batches since the last time, float64."""
        found = {name: value.numpy() for name, value in self.totals.items()}
        self._empty(found)
        return found

    def _empty(self, sums: Iterable[str]) -> None:
        self.totals = {name: self.session.hold(np.zeros((), np.float64)) for name in sums}


def _accumulate(graph: ir.Graph) -> list[str]:
    """Let every sum take what it adds to as an input; their names."""
    op = Emitter(graph, "resident")
    outputs = {value.name or "": value for value in graph.outputs}
    sums = [name for name in outputs if name.partition("/")[0] in _ADDED]
    for name in sums:
        total = ir.Value(name=_TOTAL + name, type=ir.TensorType(ir.DataType.DOUBLE))
        graph.inputs.append(total)
        outputs[name] = op.Add(total, op.Cast(outputs[name], to=ir.DataType.DOUBLE.value))
        outputs[name].dtype = ir.DataType.DOUBLE
    expose(graph, outputs)
    return sums
