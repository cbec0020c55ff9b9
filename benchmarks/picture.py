"""The README's picture: accuracy over the weights kept, drawn from the committed results.

`python -m benchmarks.picture` (extra `report`) writes docs/images/accuracy.svg; nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/images/accuracy.svg"

#: Weights kept, %; accuracy, %; bytes of the file, where there is one.
Point = tuple[float, float, int | None]

#: Model → title of its panel.
PANELS = {"lenet_300_100": "LeNet-300-100 on MNIST", "resnet56_cifar10": "ResNet-56 on CIFAR-10"}
#: Recipe in the results → its name, colour and marker here.
SERIES = {
    "default": ("onnxprune", "#00796b", "o"),
    "mlprune": ("MLPrune, as in the paper", "#8e24aa", "s"),
    "magnitude": ("magnitude", "#d84315", "^"),
    "wanda": ("Wanda", "#5d7a99", "D"),
    "stated: magnitude, BN kept": ("magnitude before BatchNorm is folded (stated by others)", "#d84315", "x"),
}
STYLE = {
    "svg.hashsalt": "onnxprune",  # the same file from the same figures
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def rows(*tables: str) -> list[dict[str, Any]]:
    """The rows of result tables that have an accuracy after pruning."""
    read = (json.loads((ROOT / f"benchmarks/results/{table}.json").read_text("utf-8")) for table in tables)
    return [row for table in read for row in table["rows"] if row.get("after") is not None]


def points(
    measured: Iterable[dict[str, Any]], model: str, recipe: str
) -> list[tuple[float, float, int | None]]:
    """What was measured of a recipe, by falling size; the dense model first."""
    found = [row for row in measured if (row["model"], row["recipe"]) == (model, recipe)]
    pruned = [(100 * row["ratio"], row["after"], row.get("bytes_after")) for row in found]
    dense = {(100.0, row["before"], row["bytes_before"]) for row in found if row.get("before") is not None}
    return sorted({*dense, *pruned}, reverse=True)


def drawn() -> str:
    """All that the picture shows, as text; the file carries it, so that one can see that it is up to date."""
    measured = rows("mnist", "cifar")
    return json.dumps(
        {f"{m}, {r}": found for m in PANELS for r in SERIES if (found := points(measured, m, r))}
    )


def draw(path: Path = PICTURE) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    measured = rows("mnist", "cifar")
    with pyplot.rc_context(STYLE):
        figure, panels = pyplot.subplots(1, len(PANELS), figsize=(8.4, 3.9), layout="constrained")
        for axes, (model, title) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, title, {recipe: points(measured, model, recipe) for recipe in SERIES})
        handles = {
            text: line
            for axes in panels
            for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None, "Description": drawn()})
        pyplot.close(figure)
    text = path.read_text("utf-8")  # matplotlib leaves spaces at the ends of lines
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", "utf-8")


def _panel(axes: Any, title: str, series: dict[str, list[Point]]) -> None:
    for recipe, found in series.items():
        name, colour, marker = SERIES[recipe]
        ours = recipe == "default"
        if found:
            xs, ys, _ = zip(*found, strict=True)
            width, above = (2.4, 3) if ours else (1.2, 2)
            axes.plot(xs, ys, color=colour, marker=marker, label=name, lw=width, zorder=above)
    for x, y, size in series["default"]:
        axes.annotate(_bytes(size), (x, y), (0, 7), textcoords="offset points", ha="center", color="#00695c")
    ticks = [x for x, _, _ in series["default"]]
    axes.set(
        title=title, xlabel="weights kept, %; above the line: size of the file", ylabel="top-1 accuracy, %"
    )
    axes.set(xscale="log", ylim=(0, 108), xlim=(min(ticks) / 1.4, 150))
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.grid(axis="y", color="#dddddd", lw=0.6)


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


if __name__ == "__main__":
    draw()
