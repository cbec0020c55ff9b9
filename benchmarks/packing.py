"""Packing: what the three ways of storing LeNet-5 at 4 % weigh, and that they load as the same network.

All rows: `python -m benchmarks.packing`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.accuracy import split_of
from benchmarks.common import Case, Column, Row, Table, run
from benchmarks.subjects import SUBJECTS
from onnxprune import compress
from onnxprune.session import Session

TABLE = Table(
    "packing",
    "LeNet-5 at 4 %, packed",
    "The column `recipe` is how the default recipe's result is packed. The bar: bytes of the file. "
    "Difference: the largest over all logits of the 10,000 test images, between the file as onnxruntime "
    "loads it and the pruned graph in memory before packing. Load: median of nine, file to session.",
    (
        Column("bytes_before", "bytes before", ",d"),
        Column("bytes_after", "bytes", ",d"),
        Column("difference", "max difference", ".2g"),
        Column("largest", "largest logit", ".1f"),
        Column("error_after", "test error, %", ".2f"),
        Column("load", "load, ms", ".1f"),
        Column("load_dense", "load of the dense file, ms", ".1f"),
        Column("seconds", "seconds", ".0f"),
    ),
)

CASES = [
    Case("lenet_5", 0.04, "fp32", 100_000),
    Case("lenet_5", 0.04, "fp16", 65_000),
    Case("lenet_5", 0.04, "none"),
]

_LOADS = 9
_EXACT = 1e-4  # float32 sums of up to 800 terms in another order, logits up to 30


def measure(case: Case, options: argparse.Namespace) -> Row:
    """Compress, load again and compare; fp16 rounds, so that only fp32 and none must give equal outputs."""
    subject, split = SUBJECTS[case.model], split_of(case.model, options.seed)
    given = {"ratio": case.ratio, "samples": options.samples, "seed": options.seed, "pack": case.recipe}
    with TemporaryDirectory() as folder:
        output = Path(folder) / "small.onnx"
        result = compress(
            subject.path, split.calibration, output=output, evaluation=split.evaluation, **given
        )
        load, load_dense = load_milliseconds(output), load_milliseconds(subject.path)
        feeds = {Session(output).inputs[0]: split.evaluation["x"]}
        (packed,), (plain,) = (Session(model).run(feeds).values() for model in (output, result.model))
    size = result.report.bytes_after
    difference = float(np.abs(packed - plain).max())
    exact = case.recipe == "fp16" or difference <= _EXACT
    return {
        "bytes_before": result.report.bytes_before,
        "bytes_after": size,
        "difference": difference,
        "largest": float(np.abs(plain).max()),
        "error_after": 100 * float((packed.argmax(1) != split.evaluation["labels"]).mean()),
        "load": load,
        "load_dense": load_dense,
        "ok": exact and (case.bar is None or (size is not None and size <= case.bar)),
    }


def load_milliseconds(path: Path) -> float:
    """Median time from file to session."""
    times = []
    for _ in range(_LOADS):
        start = time.perf_counter()
        Session(path)
        times.append(1000 * (time.perf_counter() - start))
    return round(median(times), 2)


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
