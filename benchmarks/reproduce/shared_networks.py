"""The Mean Replacement paper's question put to trained networks of other kinds: few units of every layer.

    python -m benchmarks.reproduce.shared_networks

Every score with zero and with mean, on LeNets, MobileNetV1, ResNet-20 and a VGG-like net; first-order scores
use labels. Writes `results/penalties_shared.csv` and `mean_replacement_shared.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, environment
from benchmarks.reproduce.mean_replacement import markdown
from benchmarks.reproduce.measure import Part, append, crossed, measure, read
from benchmarks.reproduce.penalties import SCORES, Network, Setting
from benchmarks.subjects import SUBJECTS

MODELS = ("lenet_300_100", "lenet_5", "mobilenetv1_025_128", "resnet20_cifar10", "vgglike_cifar10")
PART = Part(
    tuple(Setting("all", amount) for amount in (0.05, 0.1, 0.2)),
    crossed((*SCORES, "kfac"), "zero", "mean"),
    lambda step, last: True,
)
WORDS = (
    "Loss after − before in nats, no fine-tuning; the same fraction of the units of every layer goes. 1,000 "
    "training images with labels for scores, means and the first table, 500 test images for the second; "
    "MobileNetV1: halves of the 500 sample photos, which probably are training images. Means over the seeds, "
    "which draw the images and the random units. `lower`: in how many of them mean replacement has the lower "
    "penalty."
)


_TEST_IMAGES = 500


def table(rows: Iterable[Mapping[str, str]], images: str) -> list[dict[str, Any]]:
    """For each model, fraction and score: the penalties with zero and with mean."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        place = found.setdefault((row["part"], row["amount"], row["score"]), {})
        place.setdefault(row["replace"], []).append(float(row[images]))
    return [
        {"model": model, "fraction": amount, "score": score}
        | {name: float(np.mean(each[name])) for name in ("zero", "mean")}
        | {"lower": _count(each["mean"], each["zero"])}
        for (model, amount, score), each in found.items()
    ]


def _count(mean: list[float], zero: list[float]) -> str:
    return f"{sum(m < z for m, z in zip(mean, zero, strict=True))} of {len(mean)}"


def main() -> None:
    """Measure what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    path, about = args.results / "penalties_shared.csv", environment(0, None)
    for seed, name in product(args.seeds, args.only):
        if any((row["part"], row["seed"]) == (name, str(seed)) for row in read(path)):
            continue
        start, split = time.perf_counter(), SUBJECTS[name].split(seed)
        assert split.labels is not None  # all are classifiers
        train = {**split.calibration, "labels": split.labels}
        test = {key: array[:_TEST_IMAGES] for key, array in split.evaluation.items()}
        network = Network(SUBJECTS[name].path, train, test, {"all": None}, seed)
        append(path, measure(network, PART, (name, str(seed), "trained")))
        print(f"{name} seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    rows = read(path)
    tables = {images: {"Penalties of trained networks": table(rows, images)} for images in ("train", "test")}
    title = "Mean Replacement Pruning on other trained networks"
    record = {"title": title, "method": WORDS, "environment": about, "tables": tables}
    stem = args.results / "mean_replacement_shared"
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    stem.with_suffix(".md").write_text(markdown(title, WORDS, tables, about))
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
