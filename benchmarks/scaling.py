"""K-FAC statistics against images, width, depth and resolution: seconds and peak memory.

    python -m benchmarks.scaling --only "images"

Convolutional networks of random weights, one Gaussian image, batches of 32, one thread. A row is a process of
its own; its seconds are processor time of `collect` beyond the first batch, its memory the highest resident.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.common import ROOT, Case, Column, Row, Table, run
from benchmarks.kfac import Clock, to_onnx
from onnxprune import load
from onnxprune.data import open_data
from onnxprune.statistics import Gathering, collect

TABLE = Table(
    "scaling",
    "K-FAC statistics against images, width, depth and resolution",
    "A stack of 3 × 3 convolutions, 4 of 32 channels on 32 × 32 pixels and 256 images unless the row says "
    "otherwise; one thread, a process a row. Seconds are the processor's, beyond the first batch. `off the "
    "line`: beside the line through the rows with fewer images.",
    (
        Column("value", "of what"),
        Column("seconds", "seconds", ".2f"),
        Column("each", "ms an image", ".3f"),
        Column("peak", "peak, MB", ".0f"),
        Column("line", "off the line, %", ".1f"),
    ),
)
_USUAL = {"images": 256, "width": 32, "depth": 4, "resolution": 32}
_VALUES = {
    "images": (100, 300, 1000, 3000, 10_000),
    "width": (16, 32, 64, 128),
    "depth": (2, 4, 8, 16),
    "resolution": (16, 32, 64, 128),
}
_BATCH = 32
CASES = [Case(axis, 1.0, f"{value:,}") for axis, values in _VALUES.items() for value in values]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One row, in a process of its own."""
    given = _USUAL | {case.model: int(case.recipe.replace(",", ""))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.scaling", "--run", json.dumps(given)]
    done = subprocess.run(command, check=True, capture_output=True, env=os.environ | threads, cwd=ROOT)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    images = given["images"] - _BATCH
    row = {"value": case.recipe, "each": 1000 * found["seconds"] / images, **found}
    if case.model == "images":
        row["line"] = _off_the_line(options, case, row)
    return row


def _off_the_line(options: argparse.Namespace, case: Case, row: Row) -> float | None:
    """Percent by which the seconds differ from those of the line through the rows with fewer images."""
    before = [r for r in TABLE.read(options.results) if r["model"] == "images" and _images(r) < _images(row)]
    if len(before) < 2:
        return None
    slope, start = np.polyfit([_images(r) for r in before], [r["seconds"] for r in before], 1)
    return float(100 * (row["seconds"] / (start + slope * _images(row)) - 1))


def _images(row: Row) -> int:
    return int(row["value"].replace(",", ""))


def collected(images: int, width: int, depth: int, resolution: int) -> Row:
    """Seconds beyond the first batch and peak memory of this process."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [nn.Conv2d(width if layer else 3, width, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    shape = (3, resolution, resolution)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(to_onnx(net, shape).SerializeToString())
        model = load(path)
    one = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    x = np.broadcast_to(one, (images, *shape))  # no memory, however many
    data = open_data({"input": x}, model.graph.inputs, batch_size=_BATCH)
    clock = Clock("cpu")
    collect(model.ir, model.sha256, data, Gathering(provider="cpu"), clock)  # type: ignore[arg-type]
    assert clock.begun is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"seconds": time.process_time() - clock.begun, "peak": peak}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(collected(**json.loads(sys.argv[2]))))
    else:
        run(TABLE, CASES, measure, __doc__)
