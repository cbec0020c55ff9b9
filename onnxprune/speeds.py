"""Which numbers of channels this machine runs fast, measured in onnxruntime.

onnxruntime's blocked Conv works on 8 channels at a time, or on 16 with AVX-512: a few channels more cost as
much as the next block, or send the layer to another kernel altogether, so that half the MACs is far from half
the time. The table has the time of a chain of layers by its width, with the kernel and the image size that
spend most of the model's MACs. A width is slow if it lies above the lower convex hull of the table in
logarithms: what is gained by a wider layer's better use of the machine does not count as its merit.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.layers import Layer, find_layers
from onnxprune.session import Provider, Session

STEPS = (1, 2, 4, 8, 16, 32)
WIDTHS = (4, 6, 7, 8, 10, 12, 13, 16, 18, 20, 24, 27, 28, 32, 36, 40, 44, 48, 53, 56, 60, 64)
_NOISE = 0.05  # a smaller step wins if its widths are slower by no more than this
_SECONDS = 8.0
_LAYERS = 3


@dataclass(frozen=True)
class SpeedTable:
    """`seconds` of the chain by its width in channels."""

    seconds: dict[int, float]

    def slowness(self) -> dict[int, float]:
        """By width, the time over that of the hull: 1 for a width that the machine likes."""
        widths = np.log(list(self.seconds))
        times = np.log(list(self.seconds.values()))
        hull = {
            width: min(
                _between(x, (widths[a], times[a]), (widths[b], times[b]))
                for a in range(len(widths))
                for b in range(len(widths))
                if widths[a] <= x <= widths[b]
            )
            for width, x in zip(self.seconds, widths, strict=True)
        }
        return {width: float(seconds / np.exp(hull[width])) for width, seconds in self.seconds.items()}

    def step(self, size: int) -> int:
        """The multiple that a family of `size` channels is best kept in: the smallest that is hardly slower.

        Widths from a quarter of the family up are looked at; for one beyond the table, its widest half.
        """
        slowness = self.slowness()
        top = min(size, max(slowness) + 1)
        near = {width: slow for width, slow in slowness.items() if top / 4 <= width < top}
        costs = {
            step: float(np.mean(chosen))
            for step in STEPS
            if (chosen := [slow for width, slow in near.items() if width % step == 0])
        }
        least = min(costs.values(), default=1.0)
        return next((step for step, cost in costs.items() if cost <= least * (1 + _NOISE)), 1)


def _between(x: float, left: tuple[float, float], right: tuple[float, float]) -> float:
    if left[0] == right[0]:
        return min(left[1], right[1])
    share = (x - left[0]) / (right[0] - left[0])
    return float(left[1] + share * (right[1] - left[1]))


def measure(model: ir.Model, provider: Provider = "auto") -> SpeedTable:
    """The table for a normalised `model`: at every width the least of runs repeated for some seconds."""
    kernel, size = _typical(model)
    sessions = {width: Session(_chain(width, kernel, size), provider, alternating=True) for width in WIDTHS}
    rng = np.random.default_rng(0)
    samples = 4 if kernel else 64
    feeds = {
        width: {"x": rng.standard_normal((samples, width, *size)).astype(np.float32)} for width in WIDTHS
    }
    seconds = dict.fromkeys(WIDTHS, np.inf)
    end = time.perf_counter() + _SECONDS
    while True:
        for width in WIDTHS:
            sessions[width].run(feeds[width])  # wakes the threads and fills the caches
            start = time.perf_counter()
            sessions[width].run(feeds[width])
            seconds[width] = min(seconds[width], time.perf_counter() - start)
        if time.perf_counter() > end:
            return SpeedTable(seconds)


def _typical(model: ir.Model) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kernel and image size of most MACs in dense convolutions; empty where there is no Conv."""
    spent: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for layer in find_layers(model.graph):
        if layer.op == "Conv" and layer.groups == 1:
            spent[layer.shape[2:], _image(layer)] += layer.macs or layer.size
    return spent.most_common(1)[0][0] if spent else ((), ())


def _image(layer: Layer) -> tuple[int, ...]:
    """Spatial sizes of the output; 16 where they are only known at run time."""
    shape = layer.uses[0].output.shape
    if shape is None:
        return (16,) * (len(layer.shape) - 2)
    return tuple(dim if isinstance(dim, int) else 16 for dim in shape[2:])


def _chain(width: int, kernel: tuple[int, ...], size: tuple[int, ...]) -> ir.Model:
    """Layers in a row, each from `width` channels to as many, with a Relu behind it."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="speed")
    op = Emitter(graph, "speed")
    shape = ir.Shape([ir.SymbolicDim("n"), width, *size])
    value = ir.Value(name="x", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(value)
    rng = np.random.default_rng(0)
    pads = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel]
    for _ in range(_LAYERS):
        weight = rng.standard_normal((width, width, *kernel)) / np.sqrt(width * prod(kernel))
        constant = op.constant(weight, np.float32)
        value = op.Relu(op.Conv(value, constant, pads=pads) if kernel else op.Gemm(value, constant))
    value.name, value.dtype, value.shape = "y", ir.DataType.FLOAT, shape
    graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)
