"""Figures as people read them, the same in a terminal and on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from onnxprune.report.schema import (
    CompressionReport,
    EpochRow,
    GateCheck,
    GoalReport,
    MemoryUse,
    MetricChange,
    Trial,
)

_FRACTIONS = ("top1", "top5", "agreement")
_NAMES_SHOWN = 3

#: By goal: what it counts, how that is written, said of a result, what its interval is, and a failure.
_GOALS = {
    "max_drop": ("drop", "{:.4g}", "has a drop of {}", "95 %", "too much"),
    "max_bytes": ("bytes", "{:,.0f}", "takes {} bytes", "", "too many"),
    "speedup": ("speed-up", "{:.2f}", "has a speed-up of {}", "10–90 %", "not enough"),
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


def memory(use: MemoryUse) -> str:
    """What a limit of memory led to."""
    passes = "one pass" if use.passes == 1 else f"{use.passes} passes"
    where = ", factors in files" if use.spilled else ""
    return (
        f"memory: {_mebibytes(use.predicted)} predicted at the most, {_mebibytes(use.peak)} measured, of "
        f"{_mebibytes(use.limit)}; statistics in {passes}, {use.run:,} samples at once{where}"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def fate(row: EpochRow, best: int | None) -> str:
    """What became of an epoch's weights, where that is worth a word."""
    if row.epoch == best:
        return "kept"
    return "worse: back to the start, a third of the rate" if row.returned else ""


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
    return ("−" if value < 0 else "") + _GOALS[goal.name][1].format(abs(value))


def verdict(goal: GoalReport, trial: Trial) -> str:
    """Whether a candidate that was tried keeps to the goal."""
    said = "good" if trial.enough else _GOALS[goal.name][4]
    return f"{said}, a draft" if trial.draft else said


def reached(goal: GoalReport) -> str:
    """What was asked for, and what was found to reach it."""
    _, _, said, spread, _ = _GOALS[goal.name]
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


def totals(report: CompressionReport) -> list[tuple[str, str, str]]:
    """What there was before and after: rows of a name and two figures."""
    rows = [
        ("parameters kept", "100 %", percent(report.kept_ratio)),
        ("parameters", f"{report.params_before:,}", f"{report.params_after:,}"),
        ("nonzero parameters", "", f"{report.nonzero_after:,}"),
        ("MACs per sample", count(report.macs_before), count(report.macs_after)),
        ("bytes", f"{report.bytes_before:,}", count(report.bytes_after)),
    ]
    if report.metric is not None:
        metric = report.metric
        rows.append((metric.name, figure(metric.name, metric.before), figure(metric.name, metric.after)))
    if report.opset_before != report.opset_after:
        rows.append(("opset", str(report.opset_before), str(report.opset_after)))
    return rows


#: By limit: what it is about, {} being the figure of merit, and how a value of it is written.
_LIMITS: dict[str, tuple[str, Callable[[str, float], str]]] = {
    "max_bytes": ("bytes", lambda _, value: f"{value:,.0f}"),
    "max_share": ("share of the reference's bytes", lambda _, value: percent(value)),
    "max_macs": ("MACs per sample", lambda _, value: f"{value:,.0f}"),
    "min_metric": ("{}", figure),
    "max_drop": ("drop of {}", lambda _, value: f"{value:.4g}"),
}


def check(found: GateCheck, metric: str | None) -> tuple[str, str, str]:
    """What a limit is about, what it allows, and what was measured; `metric` is the figure of merit."""
    name = metric or ""
    what, written = _LIMITS[found.name]
    sign = "≥" if found.name.startswith("min_") else "≤"
    measured = written(name, found.measured)
    if found.interval is not None:
        low, high = (written(name, end) for end in found.interval)
        measured += f" (95 %: {low} … {high})"
    return what.format(name), f"{sign} {written(name, found.limit)}", measured
