"""Measures the pruning penalties of a network during training, for Mean Replacement's tables and figures.

    python -m benchmarks.reproduce.measure small_conv
    python -m benchmarks.reproduce.measure small_conv --seeds 0 --parts linear

Rows go to `results/penalties_<net>.csv`, a checkpoint at a time; what is there is not measured again. Three
parts: `paper` has all layers, amounts and scores at a few moments; `course` is two settings after
every epoch, for the figures over training; `linear` is least-squares replacement at the end of training.
Beside the paper's six scores runs `kfac`.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS
from benchmarks.reproduce.checkpoints import CACHE, EVERY, checkpoints, sample
from benchmarks.reproduce.penalties import SCORES, Groups, Method, Network, Setting
from onnxprune.options import Score

COLUMNS = (
    "part", "seed", "step", "layers", "amount", "score", "replace", "removed",
    "before", "train", "before_test", "test", "units",
)  # fmt: skip
LAYERS: Groups = {
    "all": None,
    "first conv": ("conv1.weight",),
    "mid conv": ("conv2.weight",),
    "last conv": ("conv3.weight",),
    "first dense": ("fc1.weight",),
}
AMOUNTS = (0.01, 0.05, 0.1, 0.2, 0.5, 1)
#: The setting of Figs. 6 and 7, of which the chosen units are kept, too.
FOLLOWED = Setting("mid conv", 0.1)
COURSE = (FOLLOWED, Setting("all", 0.1))

_IMAGES = 1000  # as in the paper, for scores, means and the penalty
_TEST_IMAGES = 500

Key = tuple[str, str, str]  # part, seed, step


def crossed(scores: Iterable[Score], *replacements: str) -> list[Method]:
    """Every score with every replacement."""
    return [Method(score, replaced) for score, replaced in product(scores, replacements)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Part:
    """Settings and methods, and at which of the steps they are measured."""

    settings: tuple[Setting, ...]
    methods: list[Method]
    at: Callable[[int, int], bool]  # (step, last step)


def _each_epoch(step: int, last: int) -> bool:
    return step in (EVERY, last) or (step > 0 and step % (2 * EVERY) == 0)


PARTS = {
    "paper": Part(
        tuple(Setting(*each) for each in product(LAYERS, AMOUNTS)),
        crossed((*SCORES, "kfac"), "zero", "mean"),
        lambda step, last: step in (EVERY, 4 * EVERY, last),
    ),
    "course": Part(COURSE, crossed((*SCORES, "kfac"), "zero", "mean"), _each_epoch),
    "linear": Part(
        tuple(Setting(*each) for each in product(LAYERS, (0.1, 0.5))),
        crossed(("kfac", "abs_mrs"), "linear"),
        lambda step, last: step == last,
    ),
}


def measure(network: Network, part: Part, key: Key) -> list[tuple[object, ...]]:
    """The rows of one part for one checkpoint."""
    rows = []
    for setting, method, cut, penalty in network.penalties(part.settings, part.methods):
        gone = np.concatenate(cut.gone()) if setting == FOLLOWED else np.array([])
        units = " ".join(map(str, sorted(gone.tolist())))
        rows.append(
            (*key, setting.layers, f"{setting.amount:g}", method.score, method.replace, penalty.removed,
             f"{network.before[0]:.6g}", f"{penalty.train:.5g}",
             *(("", "") if penalty.test is None else (f"{network.before[1]:.6g}", f"{penalty.test:.5g}")),
             units)
        )  # fmt: skip
    return rows


def read(path: Path) -> list[dict[str, str]]:
    """All rows measured so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Add rows, after the names of the columns."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerows(rows)


def main() -> None:
    """Parse the options and measure what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("small_conv", "medium_conv"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--test-seeds", nargs="*", type=int, default=[0], help="those with test images, too")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    path = args.results / f"penalties_{args.net}.csv"
    for name, seed in product(args.parts, args.seeds):
        files, part = checkpoints(args.net, seed, args.cache), PARTS[name]
        known = {(row["part"], row["seed"], row["step"]) for row in read(path)}
        for step, file in files.items():
            key = name, str(seed), str(step)
            if key in known or not part.at(step, max(files)):
                continue
            start = time.perf_counter()
            test = sample("test", _TEST_IMAGES, seed) if seed in args.test_seeds else None
            network = Network(file, sample("train", _IMAGES, seed), test, LAYERS, seed, step)
            rows = measure(network, part, key)
            append(path, rows)
            print(f"{args.net} {key}: {len(rows)} rows, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
