"""Statistics by Ray's workers on this machine beside one process: seconds, and how far the factors differ.

    taskset -c 0,1 python -m benchmarks.rayed

ResNet-20, 2,000 lossless CIFAR-10 training images, batches of 32. One process uses all processors; workers
share them. The ways take turns; a row has the medians, of ratios to `one process` in the same turn, and the
largest difference of any turn. In the last row one of two workers is killed (SIGKILL) when half of the images
are done.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks.common import RESULTS, Column, Row, Table, environment, merged
from benchmarks.subjects import SUBJECTS, cifar
from onnxprune import load
from onnxprune.cluster import Cluster, collect_on, connected
from onnxprune.data import Data
from onnxprune.model import Model
from onnxprune.statistics import Gathering, Statistics, collect
from onnxprune.statistics.collect import Collector
from onnxprune.statistics.opening import open_calibration
from onnxprune.threads import processors

MODEL = "resnet20_cifar10"
IMAGES = 2_000
TABLE = Table(
    "rayed",
    "K-FAC statistics by Ray's workers on one machine",
    "ResNet-20, 2,000 lossless CIFAR-10 training images, batches of 32, all layers, A and G. `one process` "
    "uses all processors given to it, workers share them. `seconds` are from the call to the result, the "
    "start of the workers and of their sessions included, that of the cluster (`cluster`) not; `gathering` "
    "is from the first batches done to the result; `processor` is the time of all these processes on a "
    "processor. Medians of turns in which the ways alternate; the differences are the largest of any turn "
    "and layer, by the largest entry of the factor. Others used the machine meanwhile.",
    (
        Column("call", "seconds", ".2f"),
        Column("times", "times one process", ".2f"),
        Column("gathering", "gathering, s", ".2f"),
        Column("processor", "processor, s", ".1f"),
        Column("cluster", "cluster, s", ".1f"),
        Column("difference", "largest difference", ".1e"),
        Column("equal", "entries equal to the bit, %", ".3f"),
        Column("again", "images gathered again", "g"),
        Column("turns", "turns"),
    ),
)
_TURNS = 5
ONE, THREAD = "one process", "one process, one thread"
WAYS = {ONE: 0, THREAD: 0, "1 worker": 1, "2 workers": 2, "4 workers": 4, "2 workers, one killed": 2}


class Watch:
    """Progress that notes when the first batches were done and how long workers ran, and may kill one."""

    def __init__(self, kills: bool) -> None:
        self.kills, self.first, self.done, self.again = kills, 0.0, 0, 0
        self.ran: dict[int, float] = {}  # seconds on a processor, by process

    def stage(self, name: str, total: int | None) -> Any:
        """One stage as any other."""
        return self

    def __enter__(self) -> Callable[..., None]:
        return self.advance

    def __exit__(self, *problem: object) -> None:
        pass

    def advance(self, steps: int, note: str = "") -> None:
        """So many samples more."""
        self.first = self.first or time.perf_counter()
        self.done += steps
        self.again += max(0, -steps)
        half = self.kills and self.done >= IMAGES // 2
        if half or self.done >= IMAGES:
            workers = [each for each in psutil.Process().children(True) if "ray::Worker" in each.name()]
            self.ran |= {each.pid: sum(each.cpu_times()[:2]) for each in workers}
            if half:
                self.kills = False
                os.kill(workers[0].pid, signal.SIGKILL)


def timed(way: str, cluster: Cluster, model: Model, data: Data) -> tuple[Row, Statistics]:
    """One way, once."""
    watch, how, workers = Watch("killed" in way), Gathering(provider="cpu"), WAYS[way]
    start, own = time.perf_counter(), time.process_time()
    if workers:
        threads = max(1, processors() // workers)
        placed = Cluster(cluster.ray, workers, threads)
        found = collect_on(placed, model.ir, model.sha256, data, how, watch)  # type: ignore[arg-type]
    elif way == THREAD:
        collector = Collector(model.ir, data, how, threads=1)
        for number, batch in enumerate(data.batches()):
            collector.add(number, batch)
            watch.advance(batch.count)
        found = collector.statistics(model.sha256)
    else:
        found = collect(model.ir, model.sha256, data, how, watch)  # type: ignore[arg-type]
    end = time.perf_counter()
    ran = time.process_time() - own + sum(watch.ran.values())
    times = {"call": end - start, "gathering": end - watch.first, "processor": ran}
    return times | {"again": watch.again}, found


def difference(found: Statistics, want: Statistics) -> Row:
    """The largest difference of any factor's entries by its largest entry, and how many are equal."""
    largest, equal, count = 0.0, 0, 0
    for name, known in want.layers.items():
        got = found.layers[name]
        for a, b in ((got.activations, known.activations), (got.gradients, known.gradients)):
            assert a is not None and b is not None
            one, other = a.mean(), b.mean()
            largest = max(largest, float(np.abs(one - other).max() / np.abs(other).max()))
            equal, count = equal + int((one == other).sum()), count + one.size
    return {"difference": largest, "equal": 100 * equal / count}


def main() -> None:
    """Measure all ways in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=_TURNS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    model = load(SUBJECTS[MODEL].path)
    data = open_calibration(model, cifar(0, count=IMAGES).calibration["x"], None, 32, 0)
    start, turns = time.perf_counter(), list[dict[str, Row]]()
    with connected("local", max(WAYS.values()), "cpu") as cluster:
        started = time.perf_counter() - start
        for _ in range(args.turns):
            turn, want = {}, None
            for way in WAYS:
                turn[way], found = timed(way, cluster, model, data)
                want = want or found
                turn[way] |= difference(found, want)
                print(way, turn[way], flush=True)
            turns.append(turn)
            write(turns, started, args.results)
    print((args.results / f"{TABLE.name}.md").read_text())


def _words(processors: int) -> str:
    return f"{processors} processor{'s' * (processors > 1)}"


def write(turns: list[dict[str, Row]], started: float, results: Path) -> None:
    """A row a way, of the turns so far."""
    for way, workers in WAYS.items():
        own = [turn[way] for turn in turns]
        row: Row = {"model": MODEL, "ratio": 1.0, "recipe": f"{way}; {_words(processors())}"}
        names = ("call", "gathering", "processor", "again")
        row |= {name: median(each[name] for each in own) for name in names} | {"turns": len(turns)}
        row["times"] = median(turn[way]["call"] / turn[ONE]["call"] for turn in turns)
        if workers:
            row["cluster"] = started
        if way != ONE:
            row["difference"] = max(each["difference"] for each in own)
            row["equal"] = min(each["equal"] for each in own)
        row["environment"] = environment(0, IMAGES)
        TABLE.write(merged(TABLE.read(results), row, []), results)


if __name__ == "__main__":
    main()
