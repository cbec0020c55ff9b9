"""Emitter: appends nodes to a graph by calling ops as methods.

Every graph this package builds (gradients, statistics, packed weights) is written through it, so that a
formula reads as one: ``op.Mul(g, op.Sub(one, op.Mul(y, y)))``. Nodes are standard ONNX ops of the graph's
own opset (18 or newer), appended in the order they are emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def names_of(graph: ir.Graph) -> Iterator[str]:
    """Names of all values and nodes of `graph` and of its subgraphs."""
    for each in (graph, *graph.subgraphs()):
        yield from (value.name for value in each.inputs if value.name)
        yield from each.initializers
        for node in each:
            yield from (name for name in (node.name, *(value.name for value in node.outputs)) if name)


class Emitter:
    """Appends nodes and initializers to `graph`; names of new values start with `prefix`.

    ``op.Relu(x)`` returns the single output; ``op.Split(x, axis=0, outputs=2)`` a tuple of two. Inputs are
    values or None (an omitted input); keywords are attributes, of which None ones are left out.
    """

    def __init__(self, graph: ir.Graph, prefix: str = "onnxprune") -> None:
        self.graph = graph
        self._prefix = prefix
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._taken = set(names_of(graph))
        self._count = 0

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)

        def emit(*inputs: ir.Value | None, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
            return self.node(op_type, inputs, attributes, outputs, domain)

        return emit

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        outputs: int = 1,
        domain: str = "",
    ) -> Any:
        """Append one node and return its output, or a tuple when `outputs` > 1."""
        given = {key: value for key, value in attributes.items() if value is not None}
        values = [ir.Value(name=self.fresh(op_type)) for _ in range(outputs)]
        node = ir.node(op_type, inputs, given, domain=domain, outputs=values, name=self.fresh(op_type))
        self.graph.append(node)
        return values[0] if outputs == 1 else tuple(values)

    def constant(self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> ir.Value:
        """An initializer holding `array`; equal small constants are shared."""
        data = np.asarray(array, dtype=dtype)
        key = (data.dtype.str, data.shape, data.tobytes()) if data.size <= 16 else (id(object()), self._count)
        if key not in self._constants:
            name = self.fresh("constant")
            value = ir.Value(
                name=name,
                shape=ir.Shape(data.shape),
                type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
                const_value=ir.tensor(data, name=name),
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """A one-dimensional int64 constant: axes, shapes, starts."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A zero-dimensional constant in the dtype of `like` (float32 where that is unknown)."""
        return self.constant(np.array(number, dtype=like.dtype.numpy() if like.dtype else np.float32))

    def fresh(self, stem: str) -> str:
        """A name that nothing in the graph has."""
        while True:
            self._count += 1
            name = f"{self._prefix}/{stem}_{self._count}"
            if name not in self._taken:
                return name
