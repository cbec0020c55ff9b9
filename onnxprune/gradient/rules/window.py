"""Windows: how the kernel of a Conv or of a pooling op walks over space, and padding resolved from it."""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import NoRule, static


@dataclass(frozen=True)
class Window:
    """One entry a spatial axis; `auto` is SAME_* where the pads depend on sizes known at run time only."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]
    auto: str | None = None

    @property
    def extents(self) -> list[int]:
        """How far a dilated kernel reaches."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]


def explicit_window(node: ir.Node, kernel: Sequence[int] | None) -> Window:
    """The window of a Conv, ConvTranspose or pooling `node` as its attributes have it, auto_pad aside.

    Raises:
        NoRule: the kernel size is not known.
    """
    kernel = node.attributes.get_ints("kernel_shape", kernel)
    if kernel is None:
        raise NoRule("unknown kernel size")
    n = len(kernel)
    fills = {"pads": [0] * 2 * n, "strides": [1] * n, "dilations": [1] * n}
    pads, strides, dilations = ([int(i) for i in node.attributes.get_ints(k, v)] for k, v in fills.items())
    return Window([int(k) for k in kernel], strides, dilations, pads[:n], pads[n:])


def with_totals(w: Window, totals: Sequence[int], more_first: bool) -> Window:
    """`w` with `totals` of padding halved; the odd one comes first when `more_first`."""
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return replace(w, begins=more, ends=less) if more_first else replace(w, begins=less, ends=more)


def resolved_window(node: ir.Node, kernel: Sequence[int] | None, x: ir.Value) -> Window:
    """The window of a Conv or pooling `node` over `x`, with auto_pad resolved as far as sizes are known.

    Raises:
        NoRule: the kernel size is not known.
    """
    w = explicit_window(node, kernel)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return w
    if auto == "VALID":
        return with_totals(w, [0] * len(w.kernel), False)
    totals = []
    for axis, (extent, stride) in enumerate(zip(w.extents, w.strides, strict=True)):
        size = 1 if stride == 1 else static(x, 2 + axis)  # for stride 1 any size gives extent − 1
        if size is None:
            return replace(w, auto=auto)
        totals.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
    return with_totals(w, totals, auto == "SAME_LOWER")


def run_time_pads(op: Emitter, w: Window, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Pads before and after each spatial axis of `x`, int64 vectors, computed at run time for SAME_*."""
    if w.auto is None:
        return op.ints(*w.begins), op.ints(*w.ends)
    strides, extents, size = op.ints(*w.strides), op.ints(*w.extents), op.Shape(x, start=2)
    one, two = op.ints(1), op.ints(2)
    steps = op.Div(op.Sub(size, one), strides)
    total = op.Max(op.Sub(op.Add(op.Mul(steps, strides), extents), size), op.ints(0))
    half = op.Div(total, two)
    rest = op.Sub(total, half)
    return (rest, half) if w.auto == "SAME_LOWER" else (half, rest)


def pad_space(
    op: Emitter, x: ir.Value, before: ir.Value, after: ir.Value, number: ir.Value | None = None
) -> ir.Value:
    """`x` with its spatial axes padded by int64 vectors; negative entries crop."""
    zeros = op.ints(0, 0)
    return op.Pad(x, op.Concat(zeros, before, zeros, after, axis=0), number)


def fit_space(op: Emitter, spread: ir.Value, w: Window, x: ir.Value) -> ir.Value:
    """`spread`, computed as if nothing were padded, cut or filled with zeros to cover just `x`."""
    before, _ = run_time_pads(op, w, x)
    after = op.Add(op.Sub(op.Shape(x, start=2), op.Shape(spread, start=2)), before)
    return pad_space(op, spread, op.Neg(before), after)


def fitting_pads(w: Window, x: ir.Value) -> list[int] | None:
    """The output_padding with which a ConvTranspose gives the size of `x`, where that is known."""
    sizes = [static(x, 2 + axis) for axis in range(len(w.kernel))]
    if w.auto is not None or None in sizes:
        return None
    padded = [(size or 0) + b + e for size, b, e in zip(sizes, w.begins, w.ends, strict=True)]
    return [(p - extent) % s for p, extent, s in zip(padded, w.extents, w.strides, strict=True)]
