"""The driver: walks a graph backwards, appends the nodes of its gradients, and says what stops them."""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.errors import GradientError
from onnxprune.gradient.rules import NO_GRADIENT, VJP, Gradient, NoRule, Wide
from onnxprune.reading import read_by

NO_PATH = "no path to an output that the loss depends on"


@dataclass
class Gradients:
    """What came of it for each wanted value: it is a key either of `of` or of `blocked`.

    Attributes:
        of: ∂L/∂value, of the value's shape and dtype. Two values may share one gradient.
        blocked: what stops the gradient, such as "LSTM node 'encoder'".
    """

    of: dict[ir.Value, ir.Value] = field(default_factory=dict)
    blocked: dict[ir.Value, list[str]] = field(default_factory=dict)

    def require(self) -> None:
        """Raise when nothing at all was reached.

        Raises:
            GradientError: names every op that stops a gradient and every layer cut off.
        """
        if self.of or not self.blocked:
            return
        reasons = sorted({reason for reasons in self.blocked.values() for reason in reasons})
        raise GradientError(
            f"no gradient reaches {', '.join(_described(value) for value in self.blocked)}; stopped by "
            f"{', '.join(reasons)}; exclude these layers, or prune by magnitude, which needs no gradient"
        )


def backpropagate(
    graph: ir.Graph, op: Emitter, seeds: Mapping[ir.Value, ir.Value], wanted: Collection[ir.Value]
) -> Gradients:
    """Append the nodes that compute ∂L/∂v for every v in `wanted` to `graph`, which must be sorted.

    A wanted value is blocked when no path leads from it to a seed, and when any of its paths runs through an
    op without a rule: a sum over some of the paths is a wrong gradient. Integer values, and ops that have no
    gradient by definition, end a path without blocking it.

    Args:
        graph: the graph, changed in place.
        op: an emitter that appends to `graph`.
        seeds: ∂L/∂s, of the shape and dtype of s, for the values s that L is a direct function of.
        wanted: the values to differentiate by.
    """
    return _Walk(graph, op, seeds, wanted).run()


class _Walk:
    def __init__(
        self, graph: ir.Graph, op: Emitter, seeds: Mapping[ir.Value, ir.Value], wanted: Collection[ir.Value]
    ) -> None:
        self._graph, self._op, self._wanted = graph, op, wanted
        self._terms: dict[ir.Value, list[ir.Value]] = {}
        self._stops: dict[ir.Value, set[str]] = {}
        self._forward = list(graph)
        self._live = _downstream(self._forward, wanted)
        for value, grad in seeds.items():
            self._add(value, grad)

    def run(self) -> Gradients:
        for node in reversed(self._forward):
            if any(value in self._live for value in read_by(node)):
                self._step(node)
        result = Gradients()
        for value in self._wanted:
            grad = self._total(value)
            if grad is not None and value not in self._stops:
                result.of[value] = grad
            else:
                result.blocked[value] = sorted(self._stops.get(value, {NO_PATH}))
        self._sweep(set(result.of.values()))
        return result

    def _step(self, node: ir.Node) -> None:
        standard = node.domain in ("", "ai.onnx")
        stops = set().union(*(self._stops.get(value, set()) for value in node.outputs))
        reached = any(value in self._terms for value in node.outputs)
        if not (stops or reached) or (standard and node.op_type in NO_GRADIENT):
            return
        if not stops:
            try:
                if not standard or node.op_type not in VJP:
                    raise NoRule
                grads = [self._total(value) for value in node.outputs]
                self._receive(node, VJP[node.op_type](self._op, node, grads))
                return
            except NoRule as form:
                stops = {f"{_described_node(node)}{f' ({form})' if str(form) else ''}"}
        for value in read_by(node):
            if value in self._live and _differentiable(value):
                self._stops.setdefault(value, set()).update(stops)

    def _receive(self, node: ir.Node, grads: Sequence[Gradient]) -> None:
        for value, grad in zip(node.inputs, grads[: len(node.inputs)], strict=True):
            if value is None or grad is None or value not in self._live:
                continue
            narrow = _sum_back(self._op, grad, value) if isinstance(grad, Wide) else grad
            self._add(value, narrow)

    def _add(self, value: ir.Value, grad: ir.Value) -> None:
        if _differentiable(value):
            self._terms.setdefault(value, []).append(grad)

    def _total(self, value: ir.Value) -> ir.Value | None:
        """∂L/∂value, complete once every node that reads `value` has been visited."""
        terms = self._terms.get(value)
        if not terms:
            return None
        if len(terms) > 1:
            terms[:] = [self._op.Sum(*terms)]
        grad = terms[0]
        grad.type = grad.type or value.type
        grad.shape = grad.shape or value.shape
        return grad

    def _sweep(self, kept: set[ir.Value]) -> None:
        """Remove what was emitted and is not needed."""
        forward = set(self._forward)
        outputs = set(self._graph.outputs) | kept
        for node in reversed(list(self._graph)):
            if node not in forward and not any(v in outputs or v.uses() for v in node.outputs):
                self._graph.remove(node, safe=True)


def _sum_back(op: Emitter, grad: Wide, value: ir.Value) -> ir.Value:
    """Sum a gradient over the axes `value` was broadcast along; at run time where sizes are unknown."""
    if grad.shape is None or value.shape is None:
        return _sum_back_at_run_time(op, grad.value, value)
    source, target = list(grad.shape), list(value.shape)
    ahead = len(source) - len(target)
    pairs = list(zip(source[ahead:], target, strict=True))
    if any(_may_stretch(wide, narrow) for wide, narrow in pairs):
        return _sum_back_at_run_time(op, grad.value, value)
    result = grad.value
    ones = [ahead + axis for axis, (wide, narrow) in enumerate(pairs) if narrow == 1 and wide != 1]
    if ones:
        result = op.ReduceSum(result, op.ints(*ones), keepdims=1)
    if ahead:
        result = op.ReduceSum(result, op.ints(*range(ahead)), keepdims=0)
    return result


def _may_stretch(wide: int | ir.SymbolicDim, narrow: int | ir.SymbolicDim) -> bool:
    """Whether only run time can tell if an axis of size `narrow` was broadcast."""
    return not isinstance(narrow, int) and (narrow.value is None or wide != narrow)


def _sum_back_at_run_time(op: Emitter, grad: ir.Value, value: ir.Value) -> ir.Value:
    shape = op.Shape(value)
    missing = op.Sub(op.Shape(op.Shape(grad)), op.Shape(shape))
    aligned = op.Concat(op.Expand(op.ints(1), missing), shape, axis=0)
    stretched = op.Not(op.Equal(aligned, op.Shape(grad)))
    axes = op.Squeeze(op.NonZero(stretched), op.ints(0))
    return op.Reshape(op.ReduceSum(grad, axes, keepdims=1, noop_with_empty_axes=1), shape)


def _downstream(nodes: Sequence[ir.Node], wanted: Collection[ir.Value]) -> set[ir.Value]:
    """Every value computed from a wanted one, the wanted ones included."""
    live = set(wanted)
    for node in nodes:
        if any(value in live for value in read_by(node)):
            live.update(node.outputs)
    return live


def _differentiable(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _described_node(node: ir.Node) -> str:
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return f"{domain}{node.op_type} node '{node.name}'"


def _described(value: ir.Value) -> str:
    producer = value.producer()
    return f"value '{value.name}'" if producer is None else _described_node(producer)
