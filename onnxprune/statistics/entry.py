"""Entry: emits one layer's sums into the statistics graph, or into graphs of their own that run later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2

import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.grams import Correlation, square
from onnxprune.layers import Layer
from onnxprune.rows import Drawn
from onnxprune.statistics.waiting import ROWS, Make, Waiting, apart
from onnxprune.threads import ONE_THREAD

Read = Callable[[Emitter, ir.Value], ir.Value]

_CALL = 1024  # rows whose sums cost more than the call that makes them


@dataclass
class Entry:
    """Emits the sums of one layer; those of few rows a batch wait, where values of batches can be joined.

    `positions` are the rows of a sample (None: unknown, and nothing waits), `batch` the samples of a run.
    """

    op: Emitter
    layer: Layer
    index: int
    waiting: dict[str, Waiting]
    positions: int | None
    batch: int

    def activations(self, sampled: bool, rows: Drawn | None) -> dict[str, ir.Value]:
        """From the features; kept as rows if `sampled`."""
        op, layer = self.op, self.layer
        inputs = [use.input for use in layer.uses]
        if not sampled and rows is None and self._waits(inputs, layer.d_in):
            assert self.positions is not None
            count = op.Mul(op.Shape(inputs[0], start=0, end=1), op.ints(self.positions))
            made = self._named({"count": count})
            return made | self._squares(("gram", "sum"), inputs, layer.d_in, layer.features, self._of_rows)
        features = _joined(op, [layer.features(op, value, rows) for value in inputs], 2)
        count = op.Shape(features, start=2)
        if rows is not None:
            count = op.Div(op.Mul(count, op.ints(rows.positions)), op.ints(rows.kept))
        made = self._named({"count": count})
        if sampled:
            features = widened(op, layer, features)
            total = op.ReduceSum(features, op.ints(2), keepdims=0)
            return made | self._named({"sum": total, "rows": op.Identity(features)})
        return made | self._of_rows(op, widened(op, layer, features))

    def correlated(self, correlation: Correlation) -> dict[str, ir.Value]:
        """From products of shifted images; the uses' inputs, equally large, count as further samples."""
        op, layer = self.op, self.layer

        def make(op: Emitter, image: ir.Value) -> dict[str, ir.Value]:
            products, total = correlation.emit(op, image)
            return self._named({"products": products, "sum": total})

        images = [use.input for use in layer.uses]
        each = op.Mul(op.Shape(images[0], start=0, end=1), op.ints(correlation.positions))
        made = self._named({"count": op.Mul(each, op.ints(len(images)))})
        if self._waits(images, layer.d_in):
            return made | self._later("products", images, layer.d_in, make)
        image = widened(op, layer, _joined(op, images, 0))
        image.shape = image.shape or images[0].shape
        return made | make(op, image)

    def gradients(self, backward: Mapping[ir.Value, ir.Value]) -> dict[str, ir.Value]:
        """From the gradients of the layer's outputs."""
        op, layer = self.op, self.layer
        values = [backward[use.output] for use in layer.uses]
        for use, value in zip(layer.uses, values, strict=True):
            value.shape = value.shape or use.output.shape
        if self._waits(values, layer.d_out):
            return self._squares(("gradient",), values, layer.d_out, layer.responses, self._squared)
        responses = _joined(op, [layer.responses(op, value) for value in values], 2)
        return self._squared(op, widened(op, layer, responses))

    def _of_rows(self, op: Emitter, rows: ir.Value) -> dict[str, ir.Value]:
        gram = square(op, rows, self.layer.groups, self.layer.d_in)
        return self._named({"sum": op.ReduceSum(rows, op.ints(2), keepdims=0), "gram": gram})

    def _squared(self, op: Emitter, rows: ir.Value) -> dict[str, ir.Value]:
        return self._named({"gradient": square(op, rows, self.layer.groups, self.layer.d_out)})

    def _waits(self, values: Sequence[ir.Value], width: int) -> bool:
        """Whether a batch has few rows, and those of several can be joined along the first axis."""
        if self._group(width) == 1:
            return False
        shape = values[0].shape
        if shape is None or any(value.shape != shape for value in values):
            return False
        columns = self.layer.op == "MatMul" and self.layer.uses[0].input is self.layer.uses[0].node.inputs[1]
        return all(isinstance(size, int) for size in shape[1:]) and not (columns and len(shape) == 2)

    def _later(self, name: str, values: Sequence[ir.Value], width: int, make: Make) -> dict[str, ir.Value]:
        """What the sums that `make` emits are made of, when there is enough of it."""
        output, given = self._given(name, values)
        self.waiting[output] = Waiting(apart(given, self.op.graph, make), self._group(width), width)
        return {output: given}

    def _squares(
        self, names: Sequence[str], values: Sequence[ir.Value], width: int, read: Read, sums: Make
    ) -> dict[str, ir.Value]:
        """What the rows that `read` emits are made of: for BLAS to square, or for what `sums` emits of them.

        Matrices are rows themselves. Wide squares are left to onnxruntime, which has as many threads at hand.
        """
        if width > ONE_THREAD:
            return self._later(names[0], values, width, lambda op, value: sums(op, read(op, value)))
        output, given = self._given(names[0], values)

        def make(op: Emitter, value: ir.Value) -> dict[str, ir.Value]:
            rows = read(op, value)
            rows.dtype = sum_type(self.layer)
            return {ROWS: rows}

        matrix = given.shape is not None and len(given.shape) == 2
        model = None if matrix else apart(given, self.op.graph, make)
        squared = tuple(f"{name}/{self.index}" for name in names)
        self.waiting[output] = Waiting(model, self._group(width), width, squared)
        return {output: given}

    def _given(self, name: str, values: Sequence[ir.Value]) -> tuple[str, ir.Value]:
        given = self.op.Identity(widened(self.op, self.layer, _joined(self.op, values, 0)))
        given.dtype, given.shape = sum_type(self.layer), values[0].shape
        return f"given/{name}/{self.index}", given

    def _group(self, width: int) -> int:
        """How many batches have about enough rows: a power of two, so that all groups end together."""
        if self.positions is None:
            return 1
        rows, wanted = self.positions * self.batch, max(width, _CALL)
        enough = wanted if self.positions == 1 else width  # more rows of one sample are dear to lay out apart
        return 1 if rows >= enough else 1 << max(0, round(log2(wanted / rows)))

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


def _joined(op: Emitter, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    joined: ir.Value = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=axis)
    return joined
