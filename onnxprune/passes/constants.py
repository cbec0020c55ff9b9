"""Which slots carry a constant: for every input of the model, the whole slice at that index is one number.

One pass in graph order. `Constants.of` is float64[slots], NaN where a slot is not known to be constant. What
an op does with constants is in `_TRANSFER`: mostly *moves* (the slots a rule ties keep their number) and
*evaluates* (elementwise: the op itself is run on the numbers). An op that is not there makes no constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.session import Session
from onnxprune.units import Groups
from onnxprune.units.linear import LINEAR, Linear, linear, padded
from onnxprune.units.moving import pads
from onnxprune.units.rules import BINARY, UNARY
from onnxprune.units.ties import Axes, constant, given

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]


class Constants:
    """The constants of `graph` with its initializers masked (True = kept); the graph stays as it is."""

    def __init__(
        self, graph: ir.Graph, groups: Groups, opset: int, masks: Mapping[str, Array] | None = None
    ) -> None:
        self.groups = groups
        self.opset = opset
        self.masks = masks or {}
        self.of: Numbers = np.full(len(groups.labels), np.nan)
        self.linear: dict[ir.Node, Linear] = {}
        self._arrays: dict[ir.Value, Array] = {}
        self._read_initializers()
        for node in graph:
            found = linear(node, groups, self.array)
            if found is not None:
                self.linear[node] = found
            transfer = _TRANSFER.get(node.op_type) if node.domain == "" else None
            if transfer is not None:
                transfer(self, node)

    def array(self, value: ir.Value | None) -> Array | None:
        """The masked array of a constant, else None."""
        array = self._arrays.get(value) if value is not None else None
        if array is None and value is not None:
            array, mask = constant(value), self.masks.get(value.name or "")
            if array is not None and mask is not None:
                array = np.where(mask, array, np.zeros((), array.dtype))
            if array is not None:
                self._arrays[value] = array
        return array

    def whole(self, axes: Axes) -> float:
        """The number a whole value consists of, or NaN."""
        for slots in axes:
            if slots is not None and len(slots) and (self.of[slots] == self.of[slots[0]]).all():
                return float(self.of[slots[0]])
        return float("nan")

    def _read_initializers(self) -> None:
        for (value, _), axes in self.groups.values():
            array = self.array(value)
            if array is None or not array.size or not np.issubdtype(array.dtype, np.floating):
                continue
            for axis, slots in enumerate(axes):
                rest = tuple(k for k in range(array.ndim) if k != axis)
                low, high = array.min(axis=rest), array.max(axis=rest)
                self.of[slots] = np.where(low == high, low, np.nan)


Transfer = Callable[[Constants, ir.Node], None]


def _moves(known: Constants, node: ir.Node) -> None:
    """A slot is constant if all slots moved into it are, and are equal."""
    source, target = known.groups.moves(node)
    touched, place = np.unique(target, return_inverse=True)
    low, high = np.full(len(touched), np.inf), np.full(len(touched), -np.inf)
    np.minimum.at(low, place, np.nan_to_num(known.of[source], nan=-np.inf))
    np.maximum.at(high, place, np.nan_to_num(known.of[source], nan=np.inf))
    known.of[touched] = np.where(low == high, low, np.nan)


def _evaluates(known: Constants, node: ir.Node) -> None:
    inputs, output, dtype = known.groups.inputs(node), known.groups.outputs(node)[0], node.outputs[0].dtype
    if dtype is None or not dtype.is_floating_point():
        return
    for depth, slots in enumerate((output or [])[::-1]):  # depth counts from the right, as broadcasting does
        if slots is None or not len(slots):
            continue
        operands = [operand_numbers(known, node, index, axes, depth) for index, axes in enumerate(inputs)]
        given = [operand for operand in operands if operand is not None]
        all_known = np.all([np.broadcast_to(~np.isnan(operand), slots.shape) for operand in given], axis=0)
        if all_known.any():
            result = np.broadcast_to(_run(node, operands, known.opset), slots.shape)
            known.of[slots] = np.where(all_known & np.isfinite(result), result, np.nan)
        if node.op_type == "Mul":  # zero times anything finite
            zero = np.any([np.broadcast_to(operand == 0, slots.shape) for operand in given], axis=0)
            known.of[slots[zero]] = 0


def operand_numbers(
    known: Constants, node: ir.Node, index: int, axes: Axes | None, depth: int
) -> Numbers | None:
    """Numbers of one operand along the axis `depth` from the right: one per index, or one for all."""
    value = node.inputs[index]
    if value is None:
        return None
    if axes is None or value.dtype is None or not value.dtype.is_floating_point():
        return np.array(np.nan)
    if not axes:
        array = known.array(value)
        return np.array(np.nan if array is None else float(array))
    slots = axes[-1 - depth] if depth < len(axes) else None
    return known.of[slots] if slots is not None and len(slots) > 1 else np.array(known.whole(axes))


def _run(node: ir.Node, operands: list[Numbers | None], opset: int) -> Array:
    """Run one node on the numbers, in float32 or the double precision it has."""
    exact = node.outputs[0].dtype == ir.DataType.DOUBLE
    dtype = np.dtype(np.float64 if exact else np.float32)
    feeds = {f"x{k}": numbers.astype(dtype) for k, numbers in enumerate(operands) if numbers is not None}
    kind = ir.TensorType(ir.DataType.from_numpy(dtype))
    values = {
        name: ir.Value(name=name, type=kind, shape=ir.Shape(numbers.shape)) for name, numbers in feeds.items()
    }
    inputs = [values.get(f"x{k}") for k in range(len(operands))]
    output = ir.Value(name="y", type=kind)
    copy = ir.Node("", node.op_type, inputs, node.attributes.values(), outputs=[output], name="copy")
    graph = ir.Graph(
        list(values.values()), [output], nodes=[copy], opset_imports={"": opset}, name="one_node"
    )
    with np.errstate(all="ignore"):
        return Session(ir.Model(graph, ir_version=10), "cpu", optimise=False, threads=1).run(feeds)["y"]


def _average_pool(known: Constants, node: ir.Node) -> None:
    """Averages of a constant are that constant, unless padding zeros are counted in."""
    padding = padded(node) or bool(node.attributes.get_int("ceil_mode", 0))
    counted = node.attributes.get_int("count_include_pad", 0) and padding
    _moves(known, node)
    if counted:
        _keep_zeros(known, node)


def _zeros(known: Constants, node: ir.Node) -> None:
    """Sums and norms: only zeros stay what they are."""
    _moves(known, node)
    _keep_zeros(known, node)


def _keep_zeros(known: Constants, node: ir.Node) -> None:
    for slots in known.groups.outputs(node)[0] or []:
        if slots is not None:
            known.of[slots] = np.where(known.of[slots] == 0, 0, np.nan)


def _pad(known: Constants, node: ir.Node) -> None:
    """Padding keeps a constant that is the padded value, and is itself a constant."""
    if node.attributes.get_string("mode", "constant") != "constant":
        return
    filling = known.array(node.inputs[2]) if given(node, 2) else np.zeros(())
    amounts, output = pads(node, len(node.outputs[0].shape or ())), known.groups.outputs(node)[0]
    if filling is None or amounts is None or output is None:
        return
    _moves(known, node)
    padded_axes = {axis for axis, amount in amounts.items() if any(amount)}
    for axis, slots in enumerate(output):
        if slots is None:
            continue
        if padded_axes - {axis}:
            known.of[slots] = np.where(known.of[slots] == filling, filling, np.nan)
        before, after = amounts.get(axis, (0, 0))
        if min(before, after) >= 0:
            known.of[slots[:before]] = known.of[slots[len(slots) - after :]] = filling


def _batch_normalization(known: Constants, node: ir.Node) -> None:
    """A constant stays one; a channel whose scale is zero becomes its bias, whatever comes in."""
    x, *parameters = known.groups.inputs(node)
    y = known.groups.outputs(node)[0]
    if not x or not y or x[1] is None or y[1] is None or any(not p or p[0] is None for p in parameters):
        return
    scale, bias, mean, variance = (known.of[p[0]] for p in parameters if p)
    deviation = np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    known.of[y[1]] = np.where(scale == 0, bias, (known.of[x[1]] - mean) / deviation * scale + bias)


def _linear(known: Constants, node: ir.Node) -> None:
    """An output is constant if every input that reaches it is."""
    layer = known.linear.get(node)
    if layer is None:
        return
    numbers = known.of[layer.x]
    usable = foldable(layer, numbers)
    varies = (layer.nonzero & ~usable[:, None, :]).any(axis=-1)
    offset = np.zeros(layer.y.shape)
    if given(node, 2):
        operand = operand_numbers(known, node, 2, known.groups.inputs(node)[2], layer.depth)
        scale = node.attributes.get_float("beta", 1.0)
        offset = scale * np.broadcast_to(np.zeros(1) if operand is None else operand, layer.y.size)
        offset = offset.reshape(layer.y.shape)
    sums = offset + layer.response(np.where(usable, numbers, 0))
    known.of[layer.y] = np.where(varies, np.nan, sums)


def foldable(layer: Linear, numbers: Numbers) -> npt.NDArray[np.bool_]:
    """Booleans: whether an input that is this constant (NaN: is none) adds a constant to the output."""
    return np.asarray(numbers == 0 if not layer.exact else ~np.isnan(numbers))


_TRANSFER: dict[str, Transfer] = {
    **dict.fromkeys(UNARY.split() + BINARY.split(), _evaluates),
    **dict.fromkeys(
        "Identity Dropout Cast CastLike Concat Split Slice Gather Transpose Squeeze Unsqueeze Reshape "
        "Flatten Expand Tile Resize DepthToSpace SpaceToDepth MaxPool GlobalMaxPool GlobalAveragePool "
        "ReduceMean ReduceMax ReduceMin".split(),
        _moves,
    ),
    **dict.fromkeys(
        "LpPool GlobalLpPool ReduceSum ReduceL1 ReduceL2 ReduceSumSquare".split(),
        _zeros,
    ),
    **dict.fromkeys(LINEAR, _linear),
    "AveragePool": _average_pool,
    "Pad": _pad,
    "BatchNormalization": _batch_normalization,
}
