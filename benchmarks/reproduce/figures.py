"""The Mean Replacement paper's figures as SVG, drawn from what `measure`, `retraining` and `squares` wrote.

    python -m benchmarks.reproduce.figures small_conv

Figs. 2 and 6a: penalties over training. Fig. 3: with mean against without; Fig. 4: that after fine-tuning.
Fig. 5: performance profiles. Fig. 6b: outputs of the units chosen. Fig. 7: how many units of a layer were
chosen at least once. Needs the extra `report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
_LOW, _HIGH = -0.1, 0.5  # of Figs. 3 and 4, as in the paper
_SCATTERED = ("norm", "abs_rs", "abs_mrs")  # the scores of Figs. 3 and 4
_HISTOGRAMS = ("abs_mrs", "mrs", "rand", "kfac")  # those of Fig. 6b, and ours

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
    pairs = {
        score: [(each[Method(score, "zero")], each[Method(score, "mean")]) for each in found.values()]  # type: ignore[arg-type]
        for score in _SCATTERED
    }
    _against(axes, pairs)


def tuned(after: int) -> Callable[[Any, Rows], None]:
    """Fig. 4: the same, `after` so many steps of fine-tuning, a point for each seed and amount."""

    def draw(axes: Any, rows: Rows) -> None:
        found = {
            (row["score"], row["seed"], row["amount"], row["replace"]): float(row["train"])
            for row in rows
            if row["after"] == str(after) and row["score"]
        }
        settings = sorted({key[1:3] for key in found})
        pairs = {
            score: [(found[score, *each, "zero"], found[score, *each, "mean"]) for each in settings]
            for score in _SCATTERED
        }
        _against(axes, pairs)

    return draw


def _against(axes: Any, pairs: Mapping[str, list[tuple[float, float]]]) -> None:
    for score, points in pairs.items():
        x, y = np.clip(np.array(points).T, _LOW, _HIGH)
        axes.scatter(x, y, s=8, lw=0, alpha=0.7, color=COLOURS[score], label=score)
    axes.plot((_LOW, _HIGH), (_LOW, _HIGH), color="#AAAAAA", lw=0.8)
    axes.set(xlabel="penalty with zero, nats", ylabel="penalty with mean, nats")


def squares(axes: Any, rows: Rows) -> None:
    """Fig. 6b: mean squared outputs of the units that go, over all moments of training and seeds."""
    values = {score: [float(row["square"]) for row in rows if row["score"] == score] for score in _HISTOGRAMS}
    bins = np.linspace(0, max(map(max, values.values())), 31)
    for score, each in values.items():
        axes.hist(each, bins, histtype="step", color=COLOURS[score], label=score)
    axes.set(xlabel="mean squared output of a unit", ylabel="units chosen", yscale="log")


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


@dataclass(frozen=True)
class Figure:
    """One figure, drawn from `<source>_<net>.csv` if that has rows with the value that `where` says."""

    title: str
    draw: Callable[[Any, Rows], None]
    source: str = "penalties"
    where: tuple[str, str] | None = None


_DURING = "Penalties during training, 10 % of {} (solid: mean, dotted: zero)"
_CHOSEN = "Units of conv2 chosen at least once"
FIGURES: Mapping[str, Figure] = {
    "fig2": Figure(_DURING.format("every layer"), over_training("all"), where=("part", "course")),
    "fig3": Figure("Mean replacement against zero", scatter, where=("part", "paper")),
    **{
        f"fig4_{n}": Figure(
            f"Mean against zero after {n} steps of fine-tuning", tuned(n), "retraining", ("after", str(n))
        )
        for n in (10, 100, 500)
    },
    "fig5": Figure("Performance profiles (solid: mean, dotted: zero)", profiles, where=("part", "paper")),
    "fig6a": Figure(_DURING.format("conv2"), over_training("mid conv"), where=("part", "course")),
    "fig6b": Figure("Outputs of the units of conv2 that are chosen", squares, "squares"),
    "fig7a": Figure(_CHOSEN, chosen(0), where=("part", "course")),
    "fig7b": Figure(f"{_CHOSEN}, second half of training", chosen(1955), where=("part", "course")),
}


def main() -> None:
    """Draw all that there are measurements for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("small_conv", "medium_conv"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    matplotlib.rcParams.update({"svg.hashsalt": "onnxprune", "svg.fonttype": "none", "font.size": 9})
    for name, figure in FIGURES.items():
        rows = read(args.results / f"{figure.source}_{args.net}.csv")
        if not any(figure.where is None or row[figure.where[0]] == figure.where[1] for row in rows):
            print(f"{name}: nothing measured yet; see `{figure.source.replace('penalties', 'measure')}`")
            continue
        canvas, axes = pyplot.subplots(figsize=(5.2, 3.6), layout="constrained")
        figure.draw(axes, rows)
        axes.set_title(figure.title, fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        path = args.results / f"{args.net}_{name}.svg"
        canvas.savefig(path, metadata={"Date": None})
        pyplot.close(canvas)
        print(path)


if __name__ == "__main__":
    main()
