"""Einsum of any number of operands: each gradient is another Einsum, of ∂L/∂y and the other operands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import ascii_letters

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import Gradient, NoRule, Rule, Wide, only, rank


def _spelled(node: ir.Node) -> tuple[list[str], str]:
    """Subscripts of the inputs and the output, "..." spelled as letters of its own, aligned at the right."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, right = equation.partition("->")
    inputs = left.split(",")
    if not arrow:
        once = sorted(
            letter for letter, n in Counter(left.replace(",", "").replace(".", "")).items() if n == 1
        )
        right = ("..." if "..." in left else "") + "".join(once)
    spare = [letter for letter in ascii_letters if letter not in equation]
    widths = [
        rank(x) - len(subscript) + 3 if x is not None and "..." in subscript else 0
        for x, subscript in zip(node.inputs, inputs, strict=True)
    ]
    batch = "".join(spare[: max(widths)])
    spelled = [s.replace("...", batch[len(batch) - n :]) for s, n in zip(inputs, widths, strict=True)]
    return spelled, right.replace("...", batch)


def _sizes(values: Sequence[ir.Value | None], subscripts: Sequence[str]) -> dict[str, int | ir.SymbolicDim]:
    sizes: dict[str, int | ir.SymbolicDim] = {}
    for value, subscript in zip(values, subscripts, strict=True):
        shape = value.shape if value is not None else None
        for letter, size in zip(subscript, shape if shape is not None else (), strict=False):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = size
    return sizes


def _einsum(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g = only(grads)
    inputs, output = _spelled(node)
    if any(len(set(subscript)) < len(subscript) for subscript in inputs):
        raise NoRule("diagonals")
    sizes = _sizes([*node.inputs, *node.outputs], [*inputs, output])
    results: list[Gradient] = []
    for index, (x, own) in enumerate(zip(node.inputs, inputs, strict=True)):
        others = [i for i in range(len(inputs)) if i != index]
        present = "".join(
            letter for letter in own if letter in output or any(letter in inputs[i] for i in others)
        )
        equation = ",".join([output, *(inputs[i] for i in others)]) + "->" + present
        grad = op.Einsum(g, *(node.inputs[i] for i in others), equation=equation)
        summed = [axis for axis, letter in enumerate(own) if letter not in present]
        if summed:  # letters this operand alone has, and loses
            grad = op.Expand(op.Unsqueeze(grad, op.ints(*summed)), op.Shape(x))
        known = all(letter in sizes for letter in own)
        results.append(Wide(grad, ir.Shape([sizes[letter] for letter in own]) if known else None))
    return results


EINSUM: dict[str, Rule] = {"Einsum": _einsum}
