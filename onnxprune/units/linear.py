"""Linear nodes seen through slots: which channels a row of the weight makes, and which its columns read.

Layout: matrix [groups, outputs, inputs, rest], outputs and inputs counted within a group; rest is kernel
positions (and the batch axes of a batched MatMul).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.units import Groups
from onnxprune.units.ties import Slots

Array = npt.NDArray[Any]
ReadArray = Callable[[ir.Value | None], Array | None]


@dataclass(frozen=True, eq=False)
class Linear:
    """One node with a constant weight. `exact`: a constant input is a constant output, at every position.

    Not so under zero padding, nor for the overlapping taps of ConvTranspose: there only zeros are.
    `depth` is the axis of the outputs, counted from the right of the bias.
    """

    node: ir.Node
    matrix: Array  # [groups, outputs, inputs, rest]
    x: Slots  # [groups, inputs]
    y: Slots  # [groups, outputs]
    exact: bool
    depth: int = 0

    @cached_property
    def nonzero(self) -> npt.NDArray[np.bool_]:
        """bool[groups, outputs, inputs]: whether anything of the input reaches the output."""
        return np.asarray((self.matrix != 0).any(axis=-1))

    def response(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What constant inputs float64[groups, inputs] add to each output, float64[groups, outputs]."""
        columns = np.flatnonzero((numbers != 0).any(axis=0))
        summed = self.matrix[:, :, columns].sum(axis=-1, dtype=np.float64)
        return np.asarray(np.einsum("goi,gi->go", summed, numbers[:, columns]))


def padded(node: ir.Node) -> bool:
    """Whether a Conv or pooling node sees padding."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    return automatic or any(node.attributes.get_ints("pads") or ())


def linear(node: ir.Node, groups: Groups, read: ReadArray) -> Linear | None:
    """`node` as a `Linear`; None if its weight is not constant or its channels are not known.

    Args:
        node: any node.
        groups: slots of its graph.
        read: the array of a constant value, None for others.
    """
    view = LINEAR.get(node.op_type)
    return view(node, groups, read) if view is not None and node.domain == "" else None


def _conv(node: ir.Node, groups: Groups, read: ReadArray) -> Linear | None:
    weight, channels = read(node.inputs[1]), _channels(node, groups)
    if weight is None or channels is None:
        return None
    transposed = node.op_type == "ConvTranspose"  # its kernels are laid out [inputs, outputs, …]
    x, y = (slots.reshape(node.attributes.get_int("group", 1), -1) for slots in channels)
    across = (x, y) if transposed else (y, x)
    matrix = weight.reshape(len(x), *(slots.shape[1] for slots in across), -1)
    matrix = matrix.swapaxes(1, 2) if transposed else matrix
    return Linear(node, matrix, x, y, exact=not (transposed or padded(node)))


def _channels(node: ir.Node, groups: Groups) -> tuple[Slots, Slots] | None:
    x, y = groups.inputs(node)[0], groups.outputs(node)[0]
    if not x or not y or x[1] is None or y[1] is None:
        return None
    return x[1], y[1]


def _gemm(node: ir.Node, groups: Groups, read: ReadArray) -> Linear | None:
    (a, b, *_), y = groups.inputs(node), groups.outputs(node)[0]
    alpha, trans_a, trans_b = (
        node.attributes.get_float("alpha", 1.0),
        node.attributes.get_int("transA", 0),
        node.attributes.get_int("transB", 0),
    )
    right, left = read(node.inputs[1]), read(node.inputs[0])
    if not a or not b or not y:
        return None
    if right is not None:
        return _dense(node, right if trans_b else right.T, a[0 if trans_a else 1], y[1], alpha, 0)
    if left is not None:
        return _dense(node, left.T if trans_a else left, b[1 if trans_b else 0], y[0], alpha, 1)
    return None


def _matmul(node: ir.Node, groups: Groups, read: ReadArray) -> Linear | None:
    (a, b), y = groups.inputs(node), groups.outputs(node)[0]
    right, left = read(node.inputs[1]), read(node.inputs[0])
    if not a or not b or not y:
        return None
    if right is not None and right.ndim > 1:
        return _dense(node, right.swapaxes(-1, -2), a[-1], y[-1], 1.0, 0)
    if left is not None and left.ndim > 1 and len(b) > 1:
        return _dense(node, left, b[-2], y[-2], 1.0, 1)
    return None


def _dense(
    node: ir.Node, weight: Array, x: Slots | None, y: Slots | None, alpha: float, depth: int
) -> Linear | None:
    """`weight` is [..., outputs, inputs]; a batched one answers differently in every batch."""
    if x is None or y is None or weight.shape[-2:] != (len(y), len(x)) or not weight.size:
        return None
    scaled = weight if alpha == 1 else weight * np.asarray(alpha, weight.dtype)
    matrix = np.moveaxis(scaled.reshape(-1, len(y), len(x)), 0, -1)[None]
    return Linear(node, matrix, x[None], y[None], exact=weight.ndim == 2, depth=depth)


LINEAR: dict[str, Callable[[ir.Node, Groups, ReadArray], Linear | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
