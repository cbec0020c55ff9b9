"""Figures with axes: drawn by matplotlib, as SVG that takes its colours and fonts from the page around it.

Colours are placeholders while matplotlib draws, and the page's variables (`style.css`) afterwards; text stays
text. Figures are as wide as a phone: they only grow.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from onnxprune.report import words
from onnxprune.report.schema import CurvePoint, EpochRow, SaliencyMap

Array = npt.NDArray[Any]

_INK, _MUTED, _LINE = "#010001", "#010002", "#010003"
_SERIES = ("#020001", "#020002", "#020003", "#020004")
_MIXED = tuple(f"#03000{level}" for level in range(5))  # from all pruned to all kept
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    **{color: f"var(--series-{place})" for place, color in enumerate(_SERIES)},
    **{
        color: f"color-mix(in oklab, var(--kept) {25 * level}%, var(--pruned))"
        for level, color in enumerate(_MIXED)
    },
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.axisbelow": True,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_SIZE = (5.0, 3.5)  # inches, at 72 points
_STRENGTHS = (0.2, 0.4, 0.65, 1.0)  # how opaque few and many weights are
_LONGEST = 24  # letters beside an axis or in a legend
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def curve(points: Sequence[CurvePoint], name: str, before: float | None) -> Markup | None:
    """The metric `name` against the file's size, a line for each method; `before` is the dense model's."""
    if not points:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for place, method in enumerate(dict.fromkeys(point.method for point in points)):
            line = sorted((p.bytes, p.metric) for p in points if p.method == method)
            color = _SERIES[place % len(_SERIES)]
            axes.plot(*zip(*line, strict=True), marker="o", markersize=4, color=color, label=_short(method))
        for point in (point for point in points if point.chosen):
            (ring,) = axes.plot(point.bytes, point.metric, "o", markersize=12, label="chosen")
            ring.set(markerfacecolor="none", markeredgecolor=_INK)
        if before is not None:
            axes.axhline(before, color=_MUTED, linestyle=":", label="before")
        axes.set_xlabel("size of the file")
        axes.set_ylabel(_short(name))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: words.size(size, "B")))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.short(name, value)))
        axes.legend(fontsize=10)
        return _svg(figure, "curve", f"{name} against the size of the file, {len(points)} compressions")


def epochs(rows: Sequence[EpochRow], name: str) -> Markup | None:
    """The loss by epoch and, where it was measured, the metric above it."""
    losses = [(row.epoch, row.loss) for row in rows if row.loss is not None]
    metrics = [(row.epoch, row.metric) for row in rows if row.metric is not None]
    curves = [(label, points) for label, points in ((name, metrics), ("loss", losses)) if points]
    if len(rows) < 2 or not curves:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_SIZE[0], 1.2 + 1.6 * len(curves)))
        parts = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        for place, (axes, (label, points)) in enumerate(zip(parts, curves, strict=True)):
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=_SERIES[place])
            axes.set_ylabel(_short(label))
            form = FuncFormatter(lambda value, _, label=label: words.short(label, value))
            axes.yaxis.set_major_formatter(form)
        parts[-1].set_xlabel("epoch")
        parts[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, "epochs", f"{' and '.join(label for label, _ in curves)} by epoch")


def saliency_map(given: SaliencyMap | None) -> Markup | None:
    """Importance against magnitude: the hue says how many are kept, the strength how many there are."""
    if given is None:
        return None
    kept, pruned = (_grid(counts) for counts in (given.kept, given.pruned))
    total = kept + pruned
    share = np.divide(kept, total, out=np.zeros(total.shape), where=total > 0)
    level = np.rint(share * (len(_MIXED) - 1)).astype(int)
    strength = np.log1p(total) / np.log1p(total.max()) * len(_STRENGTHS)
    strength = np.clip(np.ceil(strength).astype(int) - 1, 0, len(_STRENGTHS) - 1)
    edges = [np.linspace(*ends, len(total) + 1) for ends in (given.magnitude, given.importance)]
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _axes()
        for hue, color in enumerate(_MIXED):
            for place, opacity in enumerate(_STRENGTHS):
                cells = np.argwhere((total > 0) & (level == hue) & (strength == place))
                if len(cells):
                    path = Path.make_compound_path(*_cells(cells, *edges))
                    axes.add_patch(PathPatch(path, facecolor=color, linewidth=0, alpha=opacity))
        axes.set_xlim(*given.magnitude)
        axes.set_ylim(*given.importance)
        axes.set_xlabel("magnitude |w|")
        axes.set_ylabel("importance")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))
            axis.set_major_formatter(FuncFormatter(lambda exponent, _: _power(exponent)))
        said = (
            f"Importance against magnitude of {int(total.sum()):,} weights, {int(kept.sum()):,} of them kept"
        )
        return _svg(figure, "map", said)


def _grid(counts: Sequence[int]) -> Array:
    side = round(len(counts) ** 0.5)
    return np.array(counts, dtype=np.int64).reshape(side, side)


def _cells(cells: Array, across: Array, up: Array) -> Iterable[Path]:
    for row, column in cells:
        left, right, low, high = across[column], across[column + 1], up[row], up[row + 1]
        corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
        yield Path(corners, closed=True)


def _short(name: str) -> str:
    """Of a name, as much as a figure has room for."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _power(exponent: float) -> str:
    if exponent == round(exponent):
        return f"10{str(round(exponent)).translate(_SUPERSCRIPT)}"
    return f"{10**exponent:.2g}"


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    return figure, axes


def _svg(figure: Figure, salt: str, said: str) -> Markup:
    """The figure as an element of the page; `salt` keeps ids of figures apart, `said` is read aloud."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", transparent=True, metadata=_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # matplotlib writes one
    opening = f'<svg class="figure" role="img" aria-label="{escape(said)}" {box[0]}>'
    text = f"{opening}{text[text.index('>') + 1 :]}"
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every figure
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text).replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return Markup(
        text
    )  # numbers and our own words, and the names of methods and metrics, escaped by matplotlib
