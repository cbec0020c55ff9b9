"""The curve of accuracy against size as a picture, by matplotlib: one line a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxprune.errors import RuntimeUnavailableError, UsageError
from onnxprune.files import replacing
from onnxprune.report.schema import SweepReport

_FORMATS = (".svg", ".png", ".pdf")


def check_plot(path: Path) -> None:
    """Refuse, before any work, a picture that could not be drawn.

    Raises:
        UsageError: a format we do not write.
        RuntimeUnavailableError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"--plot {path}: give a file that ends in {', '.join(_FORMATS)}")
    _matplotlib()


def draw(report: SweepReport, path: Path) -> None:
    """Draw the metric over the bytes of the file, the dense model as a point and a level line.

    Raises:
        OutputError: it could not be written.
    """
    matplotlib = _matplotlib()
    figure = matplotlib.figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method in dict.fromkeys(point.method for point in report.points):
        points = sorted((p for p in report.points if p.method == method), key=lambda point: point.bytes)
        axes.plot([p.bytes for p in points], [p.metric for p in points], marker="o", label=method)
    axes.axhline(report.dense, color="0.6", linewidth=1)
    axes.plot([report.bytes_before], [report.dense], marker="s", color="0.3", linestyle="", label="dense")
    axes.set(xscale="log", xlabel="bytes of the file", ylabel=report.metric, title=Path(report.model).name)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as partial, matplotlib.rc_context({"svg.fonttype": "none"}):  # text can be searched
        figure.savefig(partial)


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise RuntimeUnavailableError(
            "matplotlib is not installed, and --plot draws with it; install 'onnxprune[report]'"
        ) from error
    return matplotlib
