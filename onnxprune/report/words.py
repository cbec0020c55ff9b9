"""Figures as people read them, the same in a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxprune.report.schema import GoalReport, MetricChange

_FRACTIONS = ("top1", "top5", "agreement")
_NAMES_SHOWN = 3

#: By goal: what it counts, how that is written, said of a result, and what its interval is.
_GOALS = {
    "max_drop": ("drop", "{:.4g}", "has a drop of {}", "95 %"),
    "max_bytes": ("bytes", "{:,.0f}", "takes {} bytes", ""),
    "speedup": ("speed-up", "{:.2f}", "has a speed-up of {}", "10–90 %"),
}


def figure(name: str, value: float) -> str:
    """A figure of merit named as in `onnxprune.evaluate.Metrics.values`."""
    return percent(value) if name in _FRACTIONS else f"{value:.5g}"


def optional(name: str, value: float | None) -> str:
    """The same, or nothing."""
    return "" if value is None else figure(name, value)


def short(name: str, value: float) -> str:
    """The same beside an axis, or a large figure."""
    return f"{100 * value:.4g} %" if name in _FRACTIONS else f"{value:.4g}"


def change(name: str, before: float, after: float) -> str:
    """By how much a figure of merit changed; points where it is a share."""
    difference = after - before
    text = f"{100 * difference:+.2f} points" if name in _FRACTIONS else f"{difference:+.3g}"
    return text.replace("-", "−")


def percent(fraction: float) -> str:
    """0.0423 as 4.23 %."""
    return f"{100 * fraction:.2f} %"


def number(value: float | None) -> str:
    """Three digits, or nothing."""
    return "" if value is None else f"{value:.3g}"


def count(value: int | None) -> str:
    """All digits, in threes; a question mark where it is not known."""
    return "?" if value is None else f"{value:,}"


def size(value: float | None, unit: str = "") -> str:
    """A count or bytes in three digits: 1.23 M, 89.9 k; a question mark where it is not known."""
    if value is None:
        return "?"
    for power, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * power:
            return f"{_digits(value / power)} {prefix}{unit}"
    return f"{value:,.0f} {unit}".strip()


def _digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def names(given: Sequence[str]) -> str:
    """The first few, and how many more."""
    shown = ", ".join(given[:_NAMES_SHOWN])
    return shown if len(given) <= _NAMES_SHOWN else f"{shown} and {len(given) - _NAMES_SHOWN} more"


def shape(sizes: Iterable[int]) -> str:
    """16×3×3×3."""
    return "×".join(str(size) for size in sizes)


def counts(goal: GoalReport) -> str:
    """What a goal counts."""
    return _GOALS[goal.name][0]


def counted(goal: GoalReport, value: float) -> str:
    """So much of it."""
    return _GOALS[goal.name][1].format(value)


def reached(goal: GoalReport) -> str:
    """What was asked for, and what was found to reach it."""
    _, _, said, spread = _GOALS[goal.name]
    flag, found = goal.name.replace("_", "-"), said.format(counted(goal, goal.reached))
    text = f"--{flag} {counted(goal, goal.asked)}: --{goal.target} {goal.value:g} {found}"
    if goal.interval is not None:
        low, high = (counted(goal, end) for end in goal.interval)
        text += f" ({spread}: {low} … {high})"
    return f"{text}; measured: {goal.measured}"


def interval(metric: MetricChange) -> str:
    """A figure of merit with its 95 % interval, which it must have."""
    assert metric.interval is not None
    low, high = (figure(metric.name, end) for end in metric.interval)
    return f"{metric.name} {figure(metric.name, metric.after)} (95 %: {low} … {high})"
