"""Gathering moments: one small graph a layer turns its pruned inputs and its targets into `sums`.

It runs in onnxruntime; only sums come back, or the rows where they are fewer than the columns.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.grams import square, times
from onnxprune.layers import Layer, Use
from onnxprune.rows import Every, Rows
from onnxprune.session import Provider, Session
from onnxprune.statistics import Gram, LayerStatistics, Samples
from onnxprune.statistics.entry import sum_type, widened
from onnxprune.sweep.sums import Moments, RowMoments
from onnxprune.sweep.targets import Target

Array = npt.NDArray[Any]


class MomentsGraph:
    """The session that turns one batch of a layer's input, dense target and pruned terms into `Moments`."""

    def __init__(
        self,
        layer: Layer,
        use: Use,
        target: Target,
        *,
        sampled: bool,
        stride: int,
        opset: int,
        provider: Provider,
    ) -> None:
        self._layer, self._sampled, self._stride = layer, sampled, stride
        self._opened = partial(Session, provider=provider, lean=True)  # features may be large
        self._wanted: Rows | None = Every(stride) if stride > 1 else None
        graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="moments")
        op = Emitter(graph, "moments")
        features = widened(
            op, layer, layer.features(op, _input(graph, "input", use.input, layer), self._wanted)
        )
        dense, offset = self._parts(op, graph, target)
        wanted = _sum(op, dense, offset, -1.0, target.sign)
        outputs = {"rows": op.Identity(features), "targets": op.Identity(wanted)}
        if not sampled:
            outputs = {
                "gram": square(op, features, layer.groups, layer.d_in),
                "sum": op.ReduceSum(features, op.ints(2), keepdims=0),
                **self._targets(op, features, wanted),
            }
        self._session = self._opened(_model(graph, outputs, sum_type(layer)))
        self._relaxed = None
        bounds = target.bounds()
        if bounds is not None and target.sign > 0 and not sampled:
            self._relaxed = self._relaxation(use, target, bounds, opset)

    def _relaxation(self, use: Use, target: Target, bounds: tuple[float, float], opset: int) -> Session:
        """The same sums for targets that move with the current fit wherever the reader cannot tell."""
        layer, rows = self._layer, self._wanted
        graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="relaxed")
        op = Emitter(graph, "relaxed")
        features = widened(op, layer, layer.features(op, _input(graph, "input", use.input, layer), rows))
        dense, offset = self._parts(op, graph, target)
        fitted = op.Add(
            op.MatMul(_free_input(graph, "weights", features), features), _free_input(graph, "bias", features)
        )
        now = _sum(op, fitted, offset, 1.0, 1.0)
        low, high = (op.scalar(float(np.clip(bound, -3e38, 3e38)), features) for bound in bounds)
        relaxed = op.Where(op.LessOrEqual(dense, low), op.Min(now, low), dense)
        relaxed = op.Where(op.GreaterOrEqual(dense, high), op.Max(now, high), relaxed)
        wanted = _sum(op, relaxed, offset, -1.0, 1.0)
        return self._opened(_model(graph, self._targets(op, features, wanted), sum_type(layer)))

    def _parts(self, op: Emitter, graph: ir.Graph, target: Target) -> tuple[ir.Value, ir.Value | None]:
        """The dense value and the sum of the pruned terms, as responses."""
        layer, rows = self._layer, self._wanted
        dense = widened(op, layer, layer.responses(op, _input(graph, "target", target.value, layer), rows))
        offset: ir.Value | None = None
        for index, (factor, value) in enumerate(target.terms):
            term = _input(graph, f"term{index}", value, layer)
            term = term if factor > 0 else op.Neg(term)
            offset = term if offset is None else op.Add(offset, term)
        if offset is None:
            return dense, None
        shaped = op.Expand(offset, op.Shape(graph.inputs[1]))
        return dense, widened(op, layer, layer.responses(op, shaped, rows))

    def _targets(self, op: Emitter, features: ir.Value, wanted: ir.Value) -> dict[str, ir.Value]:
        axis = op.ints(2)
        return {
            "cross": times(op, wanted, self._layer.groups, features),
            "target_sum": op.ReduceSum(wanted, axis, keepdims=0),
            "square": op.ReduceSum(op.Mul(wanted, wanted), axis, keepdims=0),
        }

    @property
    def relaxes(self) -> bool:
        """Whether the value's reader leaves room: see `relax`."""
        return self._relaxed is not None

    def relax(self, feeds: dict[str, Array], weights: Array, bias: Array) -> tuple[Array, Array, Array]:
        """Cross, target and square of one batch; the target is the fit's own where the reader cannot tell."""
        assert self._relaxed is not None
        single = {"weights": weights.astype(np.float32), "bias": bias[:, :, None].astype(np.float32)}
        out = {
            name: array.astype(np.float64) for name, array in self._relaxed.run({**feeds, **single}).items()
        }
        return out["cross"], out["target_sum"], out["square"]

    def run(self, feeds: dict[str, Array]) -> Moments | RowMoments:
        """Moments of one batch, in the dtype of the run."""
        out = self._session.run(feeds)
        if self._sampled:
            rows, targets = (out[name].transpose(0, 2, 1) for name in ("rows", "targets"))
            return RowMoments(np.ascontiguousarray(rows), targets.astype(np.float64, order="C"))
        count = self._rows(feeds, out)
        return Moments(
            Gram(out["gram"], count), out["cross"], out["sum"], out["target_sum"], out["square"], count
        )

    def _rows(self, feeds: dict[str, Array], out: dict[str, Array]) -> float:
        groups, d_out = out["target_sum"].shape
        rows = feeds["target"].size // int(groups * d_out)
        return -(-rows // self._stride)


def moments_of_all_uses(layer: Layer, statistics: LayerStatistics) -> Moments | RowMoments:
    """Moments of a shared weight in the dense network, where T = W X + b at every use."""
    weights, bias = layer.read()
    bias = np.zeros(weights.shape[:2]) if bias is None else bias
    factor, rows = statistics.activations, statistics.activations.weight
    if isinstance(factor, Samples):
        inputs = factor.rows[:, :, :-1]
        return RowMoments(inputs, inputs @ weights.transpose(0, 2, 1) + bias[:, None, :])
    gram = Gram(factor.mean()[:, :-1, :-1] * rows, rows)
    total = statistics.mean() * rows
    product = gram.times(weights) * rows
    projected = np.einsum("goi,gi->go", weights, total)
    cross = product + bias[:, :, None] * total[:, None, :]
    square = np.einsum("goi,goi->go", weights, product) + 2 * bias * projected + rows * bias**2
    return Moments(gram, cross, total, projected + rows * bias, square, rows)


def _sum(op: Emitter, value: ir.Value, offset: ir.Value | None, factor: float, sign: float) -> ir.Value:
    total = value
    if offset is not None:
        total = op.Add(value, offset) if factor > 0 else op.Sub(value, offset)
    return op.Neg(total) if sign < 0 else total


def _model(graph: ir.Graph, outputs: dict[str, ir.Value], dtype: ir.DataType) -> ir.Model:
    for name, value in outputs.items():
        value.name, value.dtype = name, dtype
        graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)


def _free_input(graph: ir.Graph, name: str, like: ir.Value) -> ir.Value:
    value = ir.val(name, dtype=like.dtype, shape=[None, None, None])
    graph.inputs.append(value)
    return value


def _input(graph: ir.Graph, name: str, like: ir.Value, layer: Layer) -> ir.Value:
    shape = None if like.shape is None else [None] * len(like.shape)
    value = ir.val(name, dtype=like.dtype or layer.weight.dtype, shape=shape)
    graph.inputs.append(value)
    return value
