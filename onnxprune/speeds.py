"""What a layer of so many channels costs on this machine, measured in onnxruntime.

onnxruntime's blocked Conv works on 8 channels at a time, or on 16 with AVX-512: a few channels fewer cost as
much as the whole block, or send the layer to another kernel altogether, so that half the MACs is far from
half the time. The table has the time of two layers, one that makes so many channels and one that reads them,
with the kernel and the image size that spend most of the model's MACs.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.layers import Layer, find_layers
from onnxprune.session import Provider, Session

WIDTHS = (2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64)
_OUTER = 32  # channels on both sides of the ones that vary
_GAIN = 0.5  # a width is of use if it saves so much of what it would on an even machine
_SECONDS = 8.0
_RUN = 0.001  # seconds that one timed run should take at least, at the full width
_MOST = 1024  # samples


@dataclass(frozen=True)
class SpeedTable:
    """`seconds` of the two layers by the channels between them."""

    seconds: dict[int, float]

    def time(self, width: int) -> float:
        """Time of `width` channels, relative to what they would take at the speed of the widest measured.

        Between entries it is interpolated; beyond the last one the upper half of the table repeats.
        """
        top, inside = max(self.seconds), self._inside(width)
        measured = np.interp(inside, [0, *self.seconds], [0.0, *self.seconds.values()])
        return float(measured / self.seconds[top] * top + width - inside)

    def _inside(self, width: int) -> int:
        """The width in the table that stands for `width`."""
        top = max(self.seconds)
        return width if width <= top else width - ceil((width - top) / (top / 2)) * top // 2

    def useful(self, size: int, channels: int = 1) -> list[int]:
        """Ascending numbers of units of `channels` each, up to `size`, that no wider one outruns."""
        found = [size]
        for count in range(size - 1, 0, -1):
            if self._inside(count * channels) not in self.seconds:
                continue
            gain = 1 - self.time(count * channels) / self.time(found[-1] * channels)
            if gain >= _GAIN * (1 - count / found[-1]):
                found.append(count)
        return found[::-1]


def measure(model: ir.Model, provider: Provider = "auto") -> SpeedTable:
    """The table for a normalised `model`: at every width the least of runs repeated for some seconds."""
    kernel, size = _typical(model)
    # one thread: whether a second one is woken in time differs from call to call by more than widths do
    sessions = {width: Session(_layers(width, kernel, size), provider, threads=1) for width in WIDTHS}
    feeds = {"x": np.zeros((1, _OUTER, *size), np.float32)}
    while len(feeds["x"]) < _MOST and _timed(sessions[WIDTHS[-1]], feeds) < _RUN:
        samples = 2 * len(feeds["x"])
        feeds["x"] = np.random.default_rng(0).standard_normal((samples, _OUTER, *size)).astype(np.float32)
    seconds = dict.fromkeys(WIDTHS, np.inf)
    end = time.perf_counter() + _SECONDS
    while True:
        for width in WIDTHS:
            seconds[width] = min(seconds[width], _timed(sessions[width], feeds))
        if time.perf_counter() > end:
            return SpeedTable(seconds)


def _timed(session: Session, feeds: dict[str, npt.NDArray[np.float32]]) -> float:
    session.run(feeds)  # wakes the threads and fills the caches
    start = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - start


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


def _layers(width: int, kernel: tuple[int, ...], size: tuple[int, ...]) -> ir.Model:
    """A layer that makes `width` channels, and one that reads them, with a Relu behind each."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="speed")
    op = Emitter(graph, "speed")
    shape = ir.Shape([ir.SymbolicDim("n"), _OUTER, *size])
    value = ir.Value(name="x", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(value)
    rng = np.random.default_rng(0)
    pads = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel]
    for columns, rows in ((_OUTER, width), (width, _OUTER)):
        dimensions = (rows, columns) if kernel else (columns, rows)
        weight = rng.standard_normal((*dimensions, *kernel)) / np.sqrt(columns * prod(kernel))
        constant = op.constant(weight, np.float32)
        value = op.Relu(op.Conv(value, constant, pads=pads) if kernel else op.Gemm(value, constant))
    value.name, value.dtype, value.shape = "y", ir.DataType.FLOAT, shape
    graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)
