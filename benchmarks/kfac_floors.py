"""K-FAC statistics by stage, beside the floor: the stage's operations at the rate of a matrix product.

    python -m benchmarks.kfac_floors --only resnet20

One thread, a process's own time, medians of five rounds in turns. Forward and backward are graphs of their
own; the grams are what the whole takes beyond both. Counted are multiplications and additions of products
that somebody has to make: forward, the gradients of all layers' outputs, and every layer's two grams in the
way that the cost model chose (a symmetric product counts the half that is made). Additions to totals,
activations, copies are work of ours above the floor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.common import Case, Column, Row, Table, run
from benchmarks.kfac import SUBJECTS, Subject, _images, to_onnx
from onnxprune import load
from onnxprune.data import Data, open_data
from onnxprune.emit import Emitter
from onnxprune.gradient import attach_loss, backpropagate
from onnxprune.grams import Sliding, choose
from onnxprune.grams.square import halvings
from onnxprune.layers import Layer, find_layers
from onnxprune.model import Model
from onnxprune.session import Session
from onnxprune.statistics import Gathering, collect
from onnxprune.statistics.feeding import NoiseSource
from onnxprune.statistics.graph import StatisticsGraph, expose, noise_shapes

TABLE = Table(
    "kfac_floors",
    "K-FAC statistics by stage, beside their floor",
    "One thread; `floor` is the stage's floating-point operations at the rate of a product of 1024 × 1024 "
    "numbers, in the same run. Random weights, Gaussian images.",
    (
        Column("gflop", "GFLOP a 1,000 images", ".1f"),
        Column("floor", "floor, s", ".3f"),
        Column("measured", "measured, s", ".3f"),
        Column("times", "times the floor", ".2f"),
    ),
)
_ROUNDS = 5
_STAGES = ("forward", "backward", "grams", "all")
CASES = [Case(net, 1.0, stage) for net in SUBJECTS for stage in _STAGES]
Work = dict[str, float]

_known: dict[str, dict[str, Row]] = {}


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One stage; all stages of a network are measured together."""
    if case.model not in _known:
        _known[case.model] = stages(SUBJECTS[case.model])
    return _known[case.model][case.recipe]


def stages(subject: Subject) -> dict[str, Row]:
    """Operations, floor and seconds by stage, for 1,000 images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(to_onnx(subject.make(), subject.shape).SerializeToString())
        model = load(path)
    x = _images(subject).numpy()
    data = open_data({"input": x}, model.graph.inputs, batch_size=subject.batch)
    runs: dict[str, Callable[[], object]] = {
        "forward": _forward(model, data),
        "both": _both(model, data),
        "all": lambda: collect(model.ir, model.sha256, data, Gathering(provider="cpu")),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    rates = []
    for _ in range(_ROUNDS):
        rates.append(_rate())
        for name, act in runs.items():
            start = time.process_time()
            act()
            times[name].append((time.process_time() - start) * 1000 / subject.images)
    work, took = (
        _work(find_layers(model.graph), subject),
        {name: median(all_) for name, all_ in times.items()},
    )
    seconds = {
        "forward": took["forward"],
        "backward": took["both"] - took["forward"],
        "grams": took["all"] - took["both"],
        "all": took["all"],
    }
    rate = median(rates)
    return {
        stage: {
            "gflop": work[stage] / 1e9,
            "floor": work[stage] / rate,
            "measured": seconds[stage],
            "times": seconds[stage] * rate / work[stage],
        }
        for stage in _STAGES
    }


def _rate() -> float:
    """Floating-point operations a second of a product of two matrices."""
    a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    start = time.process_time()
    for _ in range(8):
        a @ a
    return 8 * 2 * 1024**3 / (time.process_time() - start)


def _forward(model: Model, data: Data) -> Callable[[], object]:
    session = Session(model.ir, "cpu", threads=1)
    return lambda: [session.run(batch.feeds) for batch in data.batches()]


def _both(model: Model, data: Data) -> Callable[[], object]:
    """Forward and backward: the gradients are made, only their shapes leave."""
    copy = model.ir.clone()
    op = Emitter(copy.graph, "floors")
    head = attach_loss(copy, op, "auto", False)
    wanted = [use.output for layer in find_layers(copy.graph) for use in layer.uses]
    found = backpropagate(copy.graph, op, head.seeds, wanted)
    expose(copy.graph, {f"g{n}": op.Shape(found.of[value]) for n, value in enumerate(wanted)})
    graph = StatisticsGraph(copy, [], head, shapes=noise_shapes(model.ir, head))
    session, noise = Session(copy, "cpu", threads=1), NoiseSource(graph, 0, "cpu", 1)

    def act() -> None:
        for number, batch in enumerate(data.batches()):
            session.run({**batch.feeds, **noise.draw(number, batch.feeds)})

    return act


def _work(layers: list[Layer], subject: Subject) -> Work:
    """Floating-point operations for 1,000 images."""
    macs = [layer.macs or 0 for layer in layers]
    grams = sum(_gram(layer, subject.batch) + _square(layer, layer.d_out) for layer in layers)
    work = {"forward": 2.0 * sum(macs), "backward": 2.0 * sum(macs[1:]), "grams": grams}
    work["all"] = sum(work.values())
    return {stage: 1000 * operations for stage, operations in work.items()}


def _gram(layer: Layer, batch: int) -> float:
    """A's, of one image."""
    sliding = layer.window and Sliding.of(layer.window, layer.uses[0].input.shape)
    if isinstance(sliding, Sliding):
        choice = choose(sliding, batch)
        if choice.way == "correlation":
            return choice.costs["correlation"].operations / batch
    return _square(layer, layer.d_in)


def _square(layer: Layer, width: int) -> float:
    """Of a layer's rows of `width`, of one image, but for what symmetry saves."""
    positions = sum(use.positions or 1 for use in layer.uses)
    return layer.groups * positions * 2.0 * width**2 * (1 + 0.5 ** halvings(width)) / 2


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
