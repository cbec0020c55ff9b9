"""Networks for ImageNet, the whole path at ratio 0.04: time by stage, peak memory, layers, file size.

    PYTHONPATH=models python -m benchmarks.reproduce.imagenet_path --only alexnet --samples 64

AlexNet and VGG16, which are MLPrune's, and ResNet-50 have random weights (there is no ImageNet here to train
them on) and see sample photos, so nothing is said about accuracy. The command line runs in a process of its
own, whose peak of resident memory the operating system tells. A recipe such as "memory 2GiB" is the default
one with that option.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.common import ROOT, Case, Column, Row, Table, run
from benchmarks.subjects import photos

TABLE = Table(
    "imagenet_path",
    "AlexNet, VGG16 and ResNet-50 at 224 × 224, random weights, ratio 0.04",
    "`compress --ratio 0.04` from the command line, calibrated on sample photos without labels. Peak is "
    "resident memory of the whole process, of which so much was predicted with --memory; passes are those of "
    "the statistics over the data. The paper's column has Table 4, of trained networks, for the eye alone.",
    (
        Column("parameters", "parameters", ",d"),
        Column("nonzero_ratio", "kept, measured", ".4f"),
        Column("bytes_before", "bytes before", ",d"),
        Column("bytes_after", "bytes after", ",d"),
        Column("images", "photos", "d"),
        Column("peak", "peak, GB", ".2f"),
        Column("predicted", "predicted, GB", ".2f"),
        Column("passes", "passes"),
        Column("stages", "seconds by stage"),
        Column("layers", "kept by layer, %"),
        Column("paper", "paper, kept by layer, %"),
        Column("seconds", "seconds", ".0f"),
    ),
)

# Table 4 of the paper, in the order of the layers.
_PAPER = {
    "alexnet": "67.2, 37.8, 27.7, 33.2, 38.6, 1.5, 3.2, 13.7",
    "vgg16": "92.1, 66.4, 55.7, 46.9, 38.2, 30.8, 30.5, 20.6, 12.9, 12.8, 13.1, 13.9, 13.3, 0.3, 1.9, 9.2",
}
CASES = [
    *(Case(net, 0.04) for net in (*_PAPER, "resnet50")),
    *(Case("resnet50", 0.04, f"memory {limit}") for limit in ("4GB", "2GiB")),
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One run of the command line."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, data, report = folder / f"{case.model}.onnx", folder / "photos.npz", folder / "report.json"
        make = [sys.executable, str(ROOT / "models" / "make_imagenet.py"), case.model, "--out", str(model)]
        subprocess.run(make, check=True)
        halves = photos(options.seed, size=224, mean=127.5, scale=58.0)
        images = np.concatenate([halves.calibration["x"], halves.evaluation["x"]])[: options.samples]
        np.savez(data, input=images)
        found_images = len(images)
        del halves, images  # the command may be as large as this machine
        command = [sys.executable, "-m", "onnxprune", "compress", str(model), "--data", str(data), "--quiet"]
        command += ["--ratio", str(case.ratio), "--seed", str(options.seed)]
        if case.recipe.startswith("memory "):
            command += ["--memory", case.recipe.split()[1]]
        command += ["--json", str(report), "-o", str(folder / "small.onnx")]
        peak = _peak(command)
        found = json.loads(report.read_text())
    return {
        "parameters": found["params_before"],
        "nonzero_ratio": found["kept_ratio"],
        "bytes_before": found["bytes_before"],
        "bytes_after": found["bytes_after"],
        "images": found_images,
        "peak": peak / 1e9,
        "predicted": found["memory"] and found["memory"]["predicted"] / 1e9,
        "passes": found["memory"] and found["memory"]["passes"],
        "stages": ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in found["seconds"].items()),
        "layers": ", ".join(f"{100 * layer['kept']:.3g}" for layer in found["layers"]),
        "paper": _PAPER.get(case.model),
    }


def _peak(command: list[str]) -> int:
    """Bytes of resident memory at the most, of a command that succeeds."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return usage.ru_maxrss * 1024  # Linux counts in KiB


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
