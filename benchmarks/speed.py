"""Half of the MACs, measured in onnxruntime: `--macs 0.5 --round-to auto` against the dense model.

One row: `python -m benchmarks.speed --only resnet56_cifar10 --recipe "batch 32"`. Nothing else should run.
Compressed files are kept in ~/.cache/onnxprune/speed, and used again.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

from benchmarks.accuracy import split_of
from benchmarks.common import Case, Column, Row, Table, run
from benchmarks.subjects import SUBJECTS
from onnxprune import compress
from onnxprune.bench import bench

TABLE = Table(
    "speed",
    "Half of the MACs on this machine",
    "`kept` is the share of multiply-accumulates asked for, with `--round-to auto`. Speed-up: medians of "
    "ratios within a round of `onnxprune bench`, 10th and 90th percentile beside them, one thread. "
    "MobileNetV2 is calibrated on 64 photos, the others on 1,000 images. The bar is the least speed-up.",
    (
        Column("macs", "MACs, measured", ".4f"),
        Column("speedup", "speed-up", ".2f"),
        Column("low", "10 %", ".2f"),
        Column("high", "90 %", ".2f"),
        Column("milliseconds", "ms a call", ".1f"),
        Column("memory", "peak memory", ".2f"),
    ),
)

_SAMPLES = {"resnet56_cifar10": None, "vgglike_cifar10": None, "mobilenetv2_100_224": 64}
_BATCHES = {"batch 1": (1, 60), "batch 32": (32, 10)}  # and timed calls
_FILES = Path.home() / ".cache" / "onnxprune" / "speed"

CASES = [
    Case(model, 0.5, recipe, 1.6 if (model, recipe) == ("resnet56_cifar10", "batch 32") else None)
    for model in _SAMPLES
    for recipe in _BATCHES
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One row."""
    batch, runs = _BATCHES[case.recipe]
    small = _compressed(case.model, case.ratio, options.seed)
    report = bench([SUBJECTS[case.model].path, small], batch_sizes=(batch,), runs=runs, threads=1)
    dense, ours = report.models
    (latency,) = ours.latency
    assert latency.speedup is not None  # against the first model
    return {
        "macs": ours.macs / dense.macs if ours.macs and dense.macs else None,
        "speedup": latency.speedup.median,
        "low": latency.speedup.p10,
        "high": latency.speedup.p90,
        "milliseconds": 1000 * latency.seconds.median,
        "memory": ours.peak_bytes / dense.peak_bytes,
        "ok": None if case.bar is None else latency.speedup.median >= case.bar,
    }


@cache
def _compressed(model: str, share: float, seed: int) -> Path:
    output = _FILES / f"{model}_{share:g}_{seed}.onnx"
    if not output.exists():
        _FILES.mkdir(parents=True, exist_ok=True)
        given = {"macs": share, "round_to": "auto", "seed": seed, "samples": _SAMPLES[model]}
        compress(SUBJECTS[model].path, split_of(model, seed).calibration, output=output, **given)
    return output


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
