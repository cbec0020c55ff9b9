"""Packed weights: the nodes that `passes/pack.py` writes, recognised and read back as a dense weight.

    gaps (uint8) → Cast → CumSum ─────────────┐
    values (→ Cast) ──────────────────────────┤
    length → ConstantOfShape(0) → ScatterElements(axis=0) → Reshape(shape) → weight

or, where most of a weight is kept, float16 values → Cast → weight.
Recognised by structure, so that files survive tools that rename nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.normalise.constants import replace_by_initializer


@dataclass(frozen=True)
class PackedWeight:
    """One packed tensor: positions = cumsum(`gaps`), `values` as stored, `dtype` and `shape` when dense."""

    gaps: npt.NDArray[np.uint8]
    values: npt.NDArray[Any]
    dtype: ir.DataType
    shape: tuple[int, ...]

    def dense(self) -> npt.NDArray[Any]:
        """The weight, of `shape`; explicit zeros and gaps vanish."""
        flat = np.zeros(int(np.prod(self.shape, dtype=np.int64)), dtype=self.dtype.numpy())
        flat[np.cumsum(self.gaps, dtype=np.int64)] = self.values.astype(flat.dtype)
        return flat.reshape(self.shape)


class UnpackWeights(ir.passes.InPlacePass):
    """Makes every packed weight of the main graph a dense initializer of the same name."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the last node of each pattern; its other nodes are left for `RemoveUnused`."""
        found = [(node, weight) for node in model.graph if (weight := _weight(node)) is not None]
        for node, weight in found:
            replace_by_initializer(model.graph, node.outputs[0], ir.tensor(weight))
        return ir.passes.PassResult(model, bool(found))


def _weight(node: ir.Node) -> npt.NDArray[Any] | None:
    packed = read_packed(node)
    return _read_narrowed(node) if packed is None else packed.dense()


def _read_narrowed(node: ir.Node) -> npt.NDArray[Any] | None:
    """The weight that `node`, a Cast to a wider float, rebuilds; None where it is any other node."""
    stored = _constant(node, 0) if node.op_type == "Cast" else None
    to = ir.DataType(node.attributes.get_int("to", 0))
    if stored is None or stored.dtype != np.float16 or to not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    return stored.astype(to.numpy())


def read_packed(node: ir.Node) -> PackedWeight | None:
    """The weight that `node`, a Reshape, rebuilds; None where it is any other node."""
    scatter = _producer(node, 0, "ScatterElements") if node.op_type == "Reshape" else None
    if scatter is None or scatter.attributes.get_int("axis", 0) != 0:
        return None
    zeros, cumsum = _producer(scatter, 0, "ConstantOfShape"), _producer(scatter, 1, "CumSum")
    cast = _producer(cumsum, 0, "Cast") if cumsum is not None else None
    widen = _producer(scatter, 2, "Cast")
    gaps, shape = _constant(cast, 0), _constant(node, 1)
    values = _constant(scatter if widen is None else widen, 2 if widen is None else 0)
    length = _constant(zeros, 0)
    if zeros is None or gaps is None or shape is None or values is None or length is None:
        return None
    fill = zeros.attributes.get_tensor("value", None)
    sizes = tuple(int(size) for size in shape)
    if (
        gaps.dtype != np.uint8
        or fill is None
        or fill.numpy().any()
        or np.prod(sizes, dtype=np.int64) != length[0]
    ):
        return None
    return PackedWeight(gaps, values, fill.dtype, sizes)


def _producer(node: ir.Node, index: int, op_type: str) -> ir.Node | None:
    value = node.inputs[index]
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == op_type else None


def _constant(node: ir.Node | None, index: int) -> npt.NDArray[Any] | None:
    value = node.inputs[index] if node is not None else None
    return None if value is None or value.const_value is None else value.const_value.numpy()
