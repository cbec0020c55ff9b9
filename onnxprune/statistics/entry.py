"""Entry: emits one layer's sums into the statistics graph, or into graphs of their own that run later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.grams import Correlation, square
from onnxprune.layers import Layer
from onnxprune.rows import Drawn
from onnxprune.statistics.waiting import Waiting, postponed

_CALL = 1024  # rows whose sums cost more than the call that makes them


@dataclass
class Entry:
    """Emits the sums of one layer; those of few `rows` a batch (None: unknown) wait."""

    op: Emitter
    layer: Layer
    index: int
    waiting: dict[str, Waiting]
    rows: int | None

    def activations(self, sampled: bool, rows: Drawn | None) -> dict[str, ir.Value]:
        """From the features; kept as rows if `sampled`."""
        op, layer = self.op, self.layer
        features = widened(
            op, layer, _joined(op, [layer.features(op, use.input, rows) for use in layer.uses])
        )
        count = op.Shape(features, start=2)
        if rows is not None:
            count = op.Div(op.Mul(count, op.ints(rows.positions)), op.ints(rows.kept))
        made = self._named({"sum": op.ReduceSum(features, op.ints(2), keepdims=0), "count": count})
        if sampled:
            return made | self._named({"rows": op.Identity(features)})
        return made | self._square("gram", features, layer.d_in)

    def correlated(self, correlation: Correlation) -> dict[str, ir.Value]:
        """From products of shifted images; the uses' inputs, equally large, count as further samples."""
        op, layer = self.op, self.layer
        images = [widened(op, layer, use.input) for use in layer.uses]
        image = images[0] if len(images) == 1 else op.Concat(*images, axis=0)
        if image.shape is None:
            image.shape = layer.uses[0].input.shape

        def make(op: Emitter, image: ir.Value) -> dict[str, ir.Value]:
            products, total = correlation.emit(op, image)
            return self._named({"products": products, "sum": total})

        count = op.Mul(op.Shape(image, start=0, end=1), op.ints(correlation.positions))
        made = self._named({"count": count})
        enough = -(-max(layer.d_in, _CALL) // correlation.positions)
        return made | self._soon_or_late("products", image, 0, layer.d_in, enough, make)

    def gradients(self, backward: Mapping[ir.Value, ir.Value]) -> dict[str, ir.Value]:
        """From the gradients of the layer's outputs."""
        op, layer = self.op, self.layer
        parts = [layer.responses(op, backward[use.output]) for use in layer.uses]
        return self._square("gradient", widened(op, layer, _joined(op, parts)), layer.d_out)

    def _square(self, name: str, rows: ir.Value, width: int) -> dict[str, ir.Value]:
        def make(op: Emitter, rows: ir.Value) -> dict[str, ir.Value]:
            return self._named({name: square(op, rows, self.layer.groups, width)})

        if rows.shape is None:
            rows.shape = ir.Shape([self.layer.groups, width, None])
        return self._soon_or_late(name, rows, 2, width, max(width, _CALL), make)

    def _soon_or_late(
        self,
        name: str,
        value: ir.Value,
        axis: int,
        width: int,
        enough: int,
        make: Callable[[Emitter, ir.Value], dict[str, ir.Value]],
    ) -> dict[str, ir.Value]:
        """The sums `make` emits from `value`, at once, or later where a batch has fewer rows than `width`."""
        if self.rows is None or self.rows >= width:
            return make(self.op, value)
        output = f"given/{name}/{self.index}"
        given = self.op.Identity(value)
        given.dtype, given.shape = sum_type(self.layer), value.shape
        self.waiting[output] = postponed(given, self.op.graph, axis, enough, make)
        return {output: given}

    def _named(self, made: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        for name, value in made.items():
            value.dtype = ir.DataType.INT64 if name == "count" else sum_type(self.layer)
        return {f"{name}/{self.index}": value for name, value in made.items()}


def sum_type(layer: Layer) -> ir.DataType:
    """A type that sums of squares fit in: that of the weights, but float32 for float16 and bfloat16."""
    dtype = layer.weight.dtype
    return dtype if dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) else ir.DataType.FLOAT


def widened(op: Emitter, layer: Layer, value: ir.Value) -> ir.Value:
    """`value` in the layer's `sum_type`."""
    dtype = sum_type(layer)
    if layer.weight.dtype != dtype:
        value = op.Cast(value, to=dtype.value)
    value.dtype = dtype
    return value


def _joined(op: Emitter, parts: Sequence[ir.Value]) -> ir.Value:
    joined: ir.Value = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=2)
    return joined
