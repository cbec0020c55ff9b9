"""Conv, ConvTranspose, Gemm and MatMul: gradients of the data, the weights and the bias.

Layout is ONNX's own: data [N, C, *space]; Conv weights [M, C/groups, *kernel], ConvTranspose weights
[C, M/groups, *kernel].
"""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.gradient.rules.common import (
    Gradient,
    NoRule,
    Rule,
    Wide,
    only,
    operand,
    rank,
    static,
    wide,
)
from onnxprune.gradient.rules.window import (
    Window,
    explicit_window,
    fit_space,
    fitting_pads,
    pad_space,
    resolved_window,
    run_time_pads,
    with_totals,
)


def _walk(w: Window) -> dict[str, list[int]]:
    return {"strides": w.strides, "dilations": w.dilations}


def _conv_data(op: Emitter, g: ir.Value, x: ir.Value, weight: ir.Value, w: Window, groups: int) -> ir.Value:
    """∂L/∂x of a Conv: a Conv with flipped kernels for stride 1, a ConvTranspose otherwise."""
    walk = {**_walk(w), "group": groups}
    begins = [extent - 1 - pad for extent, pad in zip(w.extents, w.begins, strict=True)]
    ends = [extent - 1 - pad for extent, pad in zip(w.extents, w.ends, strict=True)]
    if w.auto is None and all(s == 1 for s in w.strides) and min(begins + ends) >= 0:
        return op.Conv(g, _flipped(op, weight, w.kernel, groups), pads=begins + ends, **walk)
    left = fitting_pads(w, x)
    if left is not None:
        return op.ConvTranspose(g, weight, pads=w.begins + w.ends, output_padding=left, **walk)
    return fit_space(op, op.ConvTranspose(g, weight, **walk), w, x)


def _flipped(op: Emitter, weight: ir.Value, kernel: list[int], groups: int) -> ir.Value:
    """[M, C/groups, *kernel] → [C, M/groups, *kernel], kernels turned round."""
    n = len(kernel)
    if groups == 1:
        weight = op.Transpose(weight, perm=[1, 0, *range(2, n + 2)])
    elif not (static(weight, 0) == groups and static(weight, 1) == 1):
        inner = op.Shape(weight, start=1)
        grouped = op.Reshape(weight, op.Concat(op.ints(groups, -1), inner, axis=0))
        turned = op.Transpose(grouped, perm=[0, 2, 1, *range(3, n + 3)])
        per_group = op.Div(op.Shape(weight, start=0, end=1), op.ints(groups))
        weight = op.Reshape(turned, op.Concat(op.ints(-1), per_group, op.ints(*kernel), axis=0))
    axes = [2 + axis for axis, size in enumerate(kernel) if size > 1]
    if not axes:
        return weight
    last, lowest = op.ints(*[-1] * len(axes)), op.ints(*[np.iinfo(np.int64).min + 1] * len(axes))
    return op.Slice(weight, last, lowest, op.ints(*axes), last)


def _kernel(op: Emitter, padded: ir.Value, narrow: ir.Value, w: Window, groups: int) -> ir.Value:
    """Correlate: out[m, c, k] = Σ_{n,t} narrow[n, m, t] · padded[n, group(m) + c, s·t + d·k].

    It is a Conv whose channels are the samples, with stride and dilation exchanged.

    Args:
        op: the emitter.
        padded: [N, C, *space].
        narrow: [N, M, *positions].
        w: the window with which `narrow` was taken from `padded`.
        groups: of the Conv.

    Returns:
        [M, C/groups, *kernel].
    """
    n = len(w.kernel)
    space = list(range(3, n + 3))
    grouped = op.Reshape(padded, op.Concat(op.ints(0, groups, -1), op.Shape(padded, start=2), axis=0))
    images = op.Transpose(grouped, perm=[2, 1, 0, *space])
    shape = op.Concat(op.Shape(images, start=0, end=1), op.ints(-1), op.Shape(padded, start=2), axis=0)
    kernels = op.Transpose(narrow, perm=[1, 0, *range(2, n + 2)])
    walk = {"strides": w.dilations, "dilations": w.strides, "group": groups}
    found = op.Transpose(op.Conv(op.Reshape(images, shape), kernels, **walk), perm=[1, 0, *range(2, n + 2)])
    return op.Slice(found, op.ints(*[0] * n), op.ints(*w.kernel), op.ints(*range(2, n + 2)))


def _kernel_shape(weight: ir.Value) -> list[int] | None:
    sizes = (
        [static(weight, axis) for axis in range(2, weight.shape.rank())]
        if weight.shape is not None
        else [None]
    )
    return None if None in sizes else [size or 0 for size in sizes]


def _bias(op: Emitter, g: ir.Value, w: Window) -> ir.Value:
    return op.ReduceSum(g, op.ints(0, *range(2, len(w.kernel) + 2)), keepdims=0)


def _conv(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, x, weight = only(grads), operand(node, 0), operand(node, 1)
    groups = node.attributes.get_int("group", 1)
    w = resolved_window(node, _kernel_shape(weight), x)
    padded = pad_space(op, x, *run_time_pads(op, w, x))
    return [_conv_data(op, g, x, weight, w, groups), _kernel(op, padded, g, w, groups), _bias(op, g, w)]


def _transposed_window(node: ir.Node, x: ir.Value, weight: ir.Value) -> Window:
    """The window of a ConvTranspose, seen as the Conv it is the adjoint of.

    Raises:
        NoRule: `output_shape` is given and the size of `x` is not known.
    """
    w = explicit_window(node, _kernel_shape(weight))
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    wanted = node.attributes.get_ints("output_shape", None)
    if wanted is None and auto in ("NOTSET", "VALID"):
        return w if auto == "NOTSET" else with_totals(w, [0] * len(w.kernel), False)
    totals = []
    extra = _output_padding(node, w)
    for axis, (extent, stride) in enumerate(zip(w.extents, w.strides, strict=True)):
        size = 0 if wanted is None else static(x, 2 + axis)  # SAME_* asks for stride · size
        if size is None:
            raise NoRule("output_shape with an input of unknown size")
        target = 0 if wanted is None else int(wanted[axis - len(w.kernel)])
        totals.append(max(stride * (size - 1) + extra[axis] + extent - target, 0))
    return with_totals(w, totals, auto != "SAME_UPPER")


def _output_padding(node: ir.Node, w: Window) -> list[int]:
    return [int(more) for more in node.attributes.get_ints("output_padding", [0] * len(w.kernel))]


def _conv_transpose(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, x, weight = only(grads), operand(node, 0), operand(node, 1)
    groups = node.attributes.get_int("group", 1)
    w = _transposed_window(node, x, weight)
    padded = pad_space(op, g, op.ints(*w.begins), op.ints(*w.ends))
    data = op.Conv(padded, weight, group=groups, **_walk(w))
    return [data, _kernel(op, padded, x, w, groups), _bias(op, g, w)]


def _gemm(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, a, b = only(grads), operand(node, 0), operand(node, 1)
    flip_a, flip_b = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if flip_a:
        grad_a = op.Gemm(b, g, alpha=alpha, transA=flip_b, transB=1)
    else:
        grad_a = op.Gemm(g, b, alpha=alpha, transB=1 - flip_b)
    if flip_b:
        grad_b = op.Gemm(g, a, alpha=alpha, transA=1, transB=flip_a)
    else:
        grad_b = op.Gemm(a, g, alpha=alpha, transA=1 - flip_a)
    grad_c = wide(op.Mul(g, op.scalar(beta, a)) if beta != 1 else g, node.outputs[0])
    return [grad_a, grad_b, grad_c]


def _flip_last(op: Emitter, value: ir.Value, axes: int) -> ir.Value:
    return op.Transpose(value, perm=[*range(axes - 2), axes - 1, axes - 2])


def _matmul(op: Emitter, node: ir.Node, grads: Sequence[ir.Value | None]) -> Sequence[Gradient]:
    g, a, b = only(grads), operand(node, 0), operand(node, 1)
    ranks = rank(a), rank(b)
    left = op.Unsqueeze(a, op.ints(0)) if ranks[0] == 1 else a
    right = op.Unsqueeze(b, op.ints(1)) if ranks[1] == 1 else b
    if ranks[0] == 1:
        g = op.Unsqueeze(g, op.ints(-1 if ranks[1] == 1 else -2))
    if ranks[1] == 1:
        g = op.Unsqueeze(g, op.ints(-1))
    rows, columns = max(ranks[0], 2), max(ranks[1], 2)
    grad_a = op.MatMul(g, _flip_last(op, right, columns))
    if columns == 2 and rows > 2:
        # one product over all rows, where a batch of products would have to be stored to be summed
        tall, flat = (op.Flatten(value, axis=rows - 1) for value in (left, g))
        grad_b: ir.Value = op.MatMul(op.Transpose(tall, perm=[1, 0]), flat)
    else:
        grad_b = op.MatMul(_flip_last(op, left, rows), g)
    if ranks[0] == 1:
        grad_a = op.Squeeze(grad_a, op.ints(-2))
    if ranks[1] == 1:
        grad_b = op.Squeeze(grad_b, op.ints(-1))
    y = node.outputs[0]
    batch = None if y.shape is None else list(y.shape)[: max(rows, columns) - 2]
    return [_batched(grad_a, a, batch), grad_b if columns == 2 else _batched(grad_b, b, batch)]


def _batched(grad: ir.Value, value: ir.Value, batch: list[int | ir.SymbolicDim] | None) -> Gradient:
    return Wide(grad, None if batch is None else ir.Shape([*batch, *list(value.shape or [])[-2:]]))


LINEAR: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
