"""The Mean Replacement paper's figures as SVG, drawn from the penalties that `measure` wrote.

    python -m benchmarks.reproduce.figures small_conv

Figs. 2 and 6a: penalties over training. Fig. 3: with mean against without. Fig. 5: performance profiles.
Fig. 7: how many units of a layer were chosen at least once. Needs the extra `report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.common import RESULTS
from benchmarks.reproduce.analysis import PAPER, Measurements, measurements, profile
from benchmarks.reproduce.measure import FOLLOWED, read
from benchmarks.reproduce.penalties import SCORES, Method

matplotlib.use("svg")
from matplotlib import pyplot

COLOURS = {
    "abs_mrs": "#0072B2", "abs_rs": "#56B4E9", "norm": "#009E73", "rand": "#7F7F7F",
    "mrs": "#D55E00", "rs": "#E69F00", "kfac": "#CC79A7",
}  # fmt: skip
STYLES = {"mean": "-", "zero": ":"}
_LOW, _HIGH = -0.1, 0.5  # of Fig. 3, as in the paper

Rows = list[dict[str, str]]


def over_training(layers: str) -> Callable[[Any, Rows], None]:
    """Figs. 2 and 6a: mean penalty over the seeds, by step; the band is from the least to the largest."""

    def draw(axes: Any, rows: Rows) -> None:
        found = {k: each for k, each in measurements(rows, "train", "course").items() if k.layers == layers}
        steps = sorted({key.step for key in found})
        for method in (*PAPER, Method("kfac", "mean")):
            values = np.array([[v[method] for k, v in found.items() if k.step == step] for step in steps])
            colour = COLOURS[method.score]
            label = method.score if method.replace == "mean" else None
            axes.plot(steps, values.mean(axis=1), STYLES[method.replace], color=colour, label=label)
            axes.fill_between(steps, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.1, lw=0)
        axes.set_yscale("symlog", linthresh=0.01)  # penalties span three powers of ten, and may be negative
        axes.set(xlabel="training step", ylabel="loss after − before, nats")

    return draw


def scatter(axes: Any, rows: Rows) -> None:
    """Fig. 3: a point for each measurement of three scores, penalty with zero against penalty with mean."""
    found = measurements(rows, "train")
    for score in ("norm", "abs_rs", "abs_mrs"):
        pairs = [(each[Method(score, "zero")], each[Method(score, "mean")]) for each in found.values()]  # type: ignore[arg-type]
        x, y = np.clip(np.array(pairs).T, _LOW, _HIGH)
        axes.scatter(x, y, s=8, lw=0, alpha=0.7, color=COLOURS[score], label=score)
    axes.plot((_LOW, _HIGH), (_LOW, _HIGH), color="#AAAAAA", lw=0.8)
    axes.set(xlabel="penalty with zero, nats", ylabel="penalty with mean, nats")


def profiles(axes: Any, rows: Rows) -> None:
    """Fig. 5: share of measurements with a penalty of at most min + τ (max − min)."""
    found: Measurements = measurements(rows, "train")
    taus = np.linspace(0, 1, 101)
    for method in (*PAPER, Method("kfac", "mean"), Method("kfac", "zero")):
        label = method.score if method.replace == "mean" else None
        curve = profile(found, method, taus)
        axes.plot(taus, curve, STYLES[method.replace], color=COLOURS[method.score], label=label)
    axes.set(xlabel="τ", ylabel="share of measurements", xlim=(0, 1), ylim=(0, 1))


def chosen(since: int) -> Callable[[Any, Rows], None]:
    """Fig. 7: share of the layer's units chosen at least once since a step, mean over seeds."""

    def draw(axes: Any, rows: Rows) -> None:
        for score in (*SCORES, "kfac"):
            steps, curve = selected(rows, score, since)
            axes.plot(steps, curve, color=COLOURS[score], label=score)
        axes.set(xlabel="training step", ylabel="share of units chosen", ylim=(0, 1))

    return draw


def selected(rows: Rows, score: str, since: int, units: int = 64) -> tuple[list[int], Any]:
    """The steps, and by then the share of the layer's units that `score` chose, mean over seeds."""
    sets: dict[int, dict[int, set[str]]] = {}
    for row in rows:
        if row["part"] == "course" and row["layers"] == FOLLOWED.layers and row["replace"] == "mean":
            if row["score"] == score and int(row["step"]) >= since:
                sets.setdefault(int(row["seed"]), {})[int(row["step"])] = set(row["units"].split())
    steps = sorted({step for each in sets.values() for step in each})
    curves = []
    for each in sets.values():
        united = [set().union(*(each[s] for s in steps[: place + 1])) for place in range(len(steps))]
        curves.append([len(one) / units for one in united])
    return steps, np.mean(curves, axis=0)


#: name -> (title, the part that it is drawn from, how)
FIGURES: Mapping[str, tuple[str, str, Callable[[Any, Rows], None]]] = {
    "fig2": (
        "Penalties during training, 10 % of every layer (solid: mean, dotted: zero)",
        "course",
        over_training("all"),
    ),
    "fig3": ("Mean replacement against zero", "paper", scatter),
    "fig5": ("Performance profiles (solid: mean, dotted: zero)", "paper", profiles),
    "fig6a": (
        "Penalties during training, 10 % of conv2 (solid: mean, dotted: zero)",
        "course",
        over_training("mid conv"),
    ),
    "fig7a": ("Units of conv2 chosen at least once", "course", chosen(0)),
    "fig7b": ("Units of conv2 chosen at least once, second half of training", "course", chosen(1955)),
}


def main() -> None:
    """Draw all that there are penalties for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("small_conv", "medium_conv"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = read(args.results / f"penalties_{args.net}.csv")
    matplotlib.rcParams.update({"svg.hashsalt": "onnxprune", "svg.fonttype": "none", "font.size": 9})
    measured = {row["part"] for row in rows}
    for name, (title, part, draw) in FIGURES.items():
        if part not in measured:
            print(f"{name}: no penalties of the part {part!r} yet; see `measure`")
            continue
        figure, axes = pyplot.subplots(figsize=(5.2, 3.6), layout="constrained")
        draw(axes, rows)
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        path = args.results / f"{args.net}_{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        print(path)


if __name__ == "__main__":
    main()
