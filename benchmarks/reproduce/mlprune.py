"""MLPrune's Table 1 through the command line: prune and tune in turns, along a schedule like the paper's.

    python -m benchmarks.reproduce.mlprune --only lenet_300_100 --recipe "default, seed 0"

The networks are this project's own, so compare the differences to dense, not the errors themselves.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.common import SHARED, Case, Column, Row, Table, compressed_by_command, run, within
from benchmarks.subjects import SUBJECTS

TABLE = Table(
    "mlprune",
    "MLPrune's Table 1, by `compress --finetune --schedule`",
    "Test error after the last stage, in points above dense (the bar, and what the paper has, in the same "
    "terms); `kept` counts all parameters. Recipes: `default` is ours, `mlprune` the paper's criterion and "
    "surgeon; both are fine-tuned alike between stages, 60,000 training images with labels and the dense net "
    "as teacher, AdamW, cosine. No epoch is chosen by the test images.",
    (
        Column("before", "dense error, %", ".2f"),
        Column("after", "error, %", ".2f"),
        Column("lost", "points above", ".2f"),
        Column("paper", "paper, points above", ".2f"),
        Column("stages", "error by stage, pruned → tuned"),
        Column("layers", "kept by layer, %"),
        Column("seconds", "seconds", ".0f"),
    ),
)

# Ratios on the way, epochs of each stage, and, by the last ratio, what the paper has and what is asked for.
_NETS: dict[str, tuple[tuple[float, ...], int, dict[float, tuple[float | None, float]]]] = {
    "lenet_300_100": ((0.3, 0.12, 0.06, 0.03, 0.02), 8, {0.013: (0.08, 0.1), 0.01: (None, 0.1)}),
    "lenet_5": ((0.3, 0.1, 0.04, 0.02, 0.01), 6, {0.005: (0.04, 0.05), 0.004: (None, 0.05)}),
}
_INPUTS = {"lenet_300_100": (784,), "lenet_5": (1, 28, 28)}
_TRAINING = ("objective=both", "learning-rate=0.001", "batch-size=128")

CASES = [
    Case(net, ratio, f"{recipe}, seed {seed}", bar if recipe == "default" else None)
    for net, (_, _, ends) in _NETS.items()
    for ratio, (_, bar) in ends.items()
    for recipe in ("default", "mlprune")
    for seed in range(3)
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One run of the command line."""
    way, epochs, ends = _NETS[case.model]
    recipe, seed = case.recipe.split(", seed ")
    schedule = [ratio for ratio in way if ratio > case.ratio] + [case.ratio]
    with TemporaryDirectory() as folder:
        train, test = _files(case.model, Path(folder))
        arguments = [SUBJECTS[case.model].path, "--recipe", recipe, "--seed", seed]
        arguments += ["--finetune", str(epochs), "--schedule", ",".join(map(str, schedule))]
        arguments += [part for setting in _TRAINING for part in ("--training", setting)]
        found = compressed_by_command(*arguments, "--train-data", train, "--eval", test)
    before, after = (100 * (1 - found["metric"][name]) for name in ("before", "after"))
    return {
        "before": before,
        "after": after,
        "lost": round(after - before, 3),
        "paper": ends[case.ratio][0],
        "kept": found["kept_ratio"],
        "stages": ", ".join(map(_stage, found["stages"])),
        "layers": ", ".join(f"{100 * layer['kept']:.3g}" for layer in found["layers"]),
        "ok": within(round(after - before, 3), case.bar),
    }


def _stage(row: Row) -> str:
    pruned, tuned = (100 * (1 - row[name]) for name in ("pruned", "tuned"))
    return f"{100 * row['kept_ratio']:.3g} %: {pruned:.2f} → {tuned:.2f}"


def _files(net: str, folder: Path) -> tuple[Path, Path]:
    paths = []
    for part in ("train", "test"):
        paths.append(folder / f"{part}.npz")
        np.savez(paths[-1], **arrays(net, part))
    return paths[0], paths[1]


def arrays(net: str, part: str) -> dict[str, np.ndarray]:
    """All images of a part of MNIST as `net` wants them, with labels."""
    x, labels = _mnist(part)
    return {"input": x.reshape(-1, *_INPUTS[net]), "labels": labels}


@cache
def _mnist(part: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(SHARED / "mnist" / f"mnist_{part}.npz", allow_pickle=False) as file:
        return file["x"].astype(np.float32) / np.float32(255), file["y"]


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
