"""What a layer should produce in the pruned network: the dense value, or at a residual sum the rest of it.

Where s feeds nothing but a sum whose other terms the pruned network already has, the best s is not the dense
s but `dense sum − pruned other terms`: the layer then repairs what the other branch lost (design §2). The sum
is found by following s forward through its only reader, for any graph; no pattern is matched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

_SUMS = {"Add": (1.0, 1.0), "Sub": (1.0, -1.0)}
_CARRIERS = ("Identity", "Dropout")


@dataclass(frozen=True)
class Target:
    """s should become `sign · (dense value − Σ sign_i · pruned term_i)`."""

    value: ir.Value
    sign: float
    terms: tuple[tuple[float, ir.Value], ...]

    def bounds(self) -> tuple[float, float] | None:
        """Below and above which the only reader of the value cannot tell numbers apart: (0, ∞) for a Relu."""
        readers = list(self.value.uses())
        if len(readers) != 1 or self.value.is_graph_output():
            return None
        node, index = readers[0]
        if index != 0 or node.op_type not in ("Relu", "Clip"):
            return None
        if node.op_type == "Relu":
            return 0.0, np.inf
        ends = [*node.inputs[1:], None, None][:2]
        if any(end is not None and end.const_value is None for end in ends):
            return None
        low, high = (
            None if end is None or end.const_value is None else float(end.const_value.numpy()) for end in ends
        )
        return -np.inf if low is None else low, np.inf if high is None else high


def find_target(output: ir.Value, available: Callable[[ir.Value], bool]) -> Target:
    """The target of a layer with output s; `available` tells whether the pruned network has a value yet."""
    value, sign, terms = output, 1.0, list[tuple[float, ir.Value]]()
    while not value.is_graph_output():
        readers = list(value.uses())
        if len(readers) != 1 or readers[0][0].graph is not output.graph:
            break
        node, index = readers[0]
        if node.op_type in _CARRIERS and index == 0:
            value = node.outputs[0]
            continue
        other = node.inputs[1 - index] if node.op_type in _SUMS else None
        if other is None or other is value or not _same_shape(value, node.outputs[0]) or not available(other):
            break
        own, others = _SUMS[node.op_type][index], _SUMS[node.op_type][1 - index]
        terms = [*((own * factor, term) for factor, term in terms), (others, other)]
        sign, value = own * sign, node.outputs[0]
    return Target(value, sign, tuple(terms))


def _same_shape(left: ir.Value, right: ir.Value) -> bool:
    if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
        return False
    sizes = zip(left.shape, right.shape, strict=True)
    return all(a == b and (isinstance(a, int) or a.value is not None) for a, b in sizes)
