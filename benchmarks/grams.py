"""Grams of patches, directly and by correlation: times of a model's layers, and what the cost model says.

    python -m benchmarks.grams models/resnet20_cifar10.onnx --batch 32

Both ways run in turns in one process; a row has the median of the ratios of five rounds. Nothing else should
run. `--count` only counts. "Whole" is the direct way without the halves that `grams.square` leaves out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir

from onnxprune import load
from onnxprune.emit import Emitter
from onnxprune.grams import Choice, Sliding, choose, square
from onnxprune.im2col import Window, patches
from onnxprune.layers import find_layers
from onnxprune.session import Session

_ROUNDS = 5


def slidings(path: Path) -> Iterator[tuple[str, Window, Sliding]]:
    """The stride-1 convolutions of a model, one of each shape."""
    seen = set()
    for layer in find_layers(load(path).ir.graph):
        sliding = layer.window and Sliding.of(layer.window, layer.uses[0].input.shape)
        if sliding and layer.window and sliding not in seen:
            seen.add(sliding)
            yield layer.name, layer.window, sliding


def session(window: Window, sliding: Sliding, choice: Choice, way: str, threads: int) -> Session:
    """A graph that makes the gram of a layer's input by one way."""
    shape = [None, sliding.groups * sliding.channels, *sliding.sizes]
    value = ir.val("x", dtype=ir.DataType.FLOAT, shape=shape)
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name=way)
    op = Emitter(graph, way)
    if way == "correlation" and choice.correlation is not None:
        made, total = choice.correlation.emit(op, value)
    else:
        features = patches(op, value, window, np.float32)
        made = square(op, features, sliding.groups, sliding.width)
        total = op.ReduceSum(features, op.ints(2), keepdims=0)
    for name, output in (("gram", made), ("sum", total)):
        output.name, output.dtype = name, ir.DataType.FLOAT
        graph.outputs.append(output)
    return Session(ir.Model(graph, ir_version=10), "cpu", threads=threads, alternating=True)


def ratio(window: Window, sliding: Sliding, choice: Choice, batch: int, threads: int) -> float:
    """Time of the direct way over that of the correlation."""
    sessions = [session(window, sliding, choice, way, threads) for way in ("direct", "correlation")]
    shape = (batch, sliding.groups * sliding.channels, *sliding.sizes)
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    ratios = []
    for _ in range(_ROUNDS + 1):  # the first warms up
        seconds = []
        for one in sessions:
            start = time.perf_counter()
            one.run(feeds)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return median(ratios[1:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", action="store_true", help="count operations only, run nothing")
    options = parser.parse_args()
    head = "layer|channels|kernel|map|GFLOP whole|direct|correlation|ratio|by cost|chosen|measured"
    print("|", head.replace("|", " | "), "|\n" + "|---" * 11 + "|")
    for name, window, sliding in slidings(options.model):
        choice = choose(sliding, options.batch)
        if choice.correlation is None:
            continue
        direct, other = choice.costs["direct"], choice.costs["correlation"]
        measured = None if options.count else ratio(window, sliding, choice, options.batch, options.threads)
        whole = 2 * sliding.groups * sliding.width**2 * options.batch * prod(sliding.outputs)
        cells = (
            name,
            f"{sliding.groups}·{sliding.channels}",
            *("×".join(map(str, axes)) for axes in (sliding.kernel, sliding.sizes)),
            *(f"{number / 1e9:.3f}" for number in (whole, direct.operations, other.operations)),
            f"{whole / other.operations:.2f}",
            f"{direct.total / other.total:.2f}",
            choice.way,
            "" if measured is None else f"{measured:.2f}",
        )
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
