"""The records of `schema` as tables in a terminal, and progress bars on stderr.

Results go to stdout; progress, notes and warnings to stderr, so that a pipe gets results only.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnxprune.evaluate import Metrics
from onnxprune.report import words
from onnxprune.report.schema import (
    BenchReport,
    Calibration,
    CompressionReport,
    FinetuneReport,
    GoalReport,
    Inspection,
    PackReport,
    Repacking,
    Skipped,
    Spread,
    SweepReport,
    UnpackReport,
)
from onnxprune.report.terminal import screen, table

_REPACKED: dict[type[Repacking], tuple[str, str]] = {
    UnpackReport: ("packed weights made dense", "no packed weights"),
    PackReport: ("weights packed", "no weights that get smaller"),
}


def print_compression(report: CompressionReport) -> None:
    """Per layer what is kept, then the totals before and after."""
    importance = any(layer.importance is not None for layer in report.layers)
    rows = [
        (
            row.name,
            row.op,
            words.shape(row.shape),
            words.percent(row.kept),
            *([words.number(row.importance)] * importance),
        )
        for row in report.layers
    ]
    table(("layer", "op", "shape", "kept", *(["importance"] * importance)), rows, left=2)
    if report.units:
        families = [
            (
                row.name,
                words.names(row.readers),
                f"{row.units:,}",
                f"{row.kept:,}",
                words.percent(row.kept / row.units),
            )
            for row in report.units
        ]
        table(("units made by", "read by", "units", "kept", ""), families, left=2)
    if report.stages:
        name = report.metric.name if report.metric is not None else ""
        rounds = [
            (
                words.percent(row.kept_ratio),
                words.optional(name, row.pruned),
                words.optional(name, row.tuned),
                f"{row.seconds:.0f}",
            )
            for row in report.stages
        ]
        table(("stage, kept", f"{name} pruned", f"{name} tuned", "seconds"), rounds, left=1)
    if report.goal is not None:
        _trials(report.goal)
    _skipped("left alone", report.skipped)
    table(("", "before", "after"), words.totals(report), left=1)
    out = screen()
    out.print(f"data: {report.data}", soft_wrap=True)
    if report.seconds:
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())
        out.print(f"time: {stages}", soft_wrap=True)
    if report.memory is not None:
        out.print(words.memory(report.memory), soft_wrap=True)
    if report.macs_before is not None and report.macs_before == report.macs_after and report.kept_ratio < 1:
        out.print(
            "zeros make the file smaller, not onnxruntime faster: the MACs are unchanged", soft_wrap=True
        )
    if report.goal is not None:
        out.print(words.reached(report.goal), soft_wrap=True)
        if report.metric is not None and report.metric.interval is not None:
            out.print(words.interval(report.metric), soft_wrap=True)
    if report.output is not None:
        out.print(f"written: {report.output}", soft_wrap=True)


def print_sweep(report: SweepReport) -> None:
    """Every point, by method, below the dense model."""
    dense = ("dense", "", "100 %", words.count(report.macs_before), f"{report.bytes_before:,}")
    rows = [(*dense, words.figure(report.metric, report.dense))]
    rows += [
        (
            point.method,
            f"{point.value:g}",
            words.percent(point.kept_ratio),
            words.count(point.macs),
            f"{point.bytes:,}",
            words.figure(report.metric, point.metric),
        )
        for point in report.points
    ]
    target = report.points[0].target
    table(("method", f"--{target}", "kept", "MACs per sample", "bytes", report.metric), rows, left=1)
    _skipped("cannot be", report.skipped)
    out = screen()
    out.print(f"data: {report.data}", soft_wrap=True)
    out.print(f"measured on: {report.measured}", soft_wrap=True)
    out.print("time: " + ", ".join(f"{n} {s:.1f} s" for n, s in report.seconds.items()), soft_wrap=True)


def print_calibration(calibration: Calibration) -> None:
    """The layers that statistics were gathered of."""
    rows = [(row.name, row.blocked or "", f"{row.positions:,.6g}") for row in calibration.layers]
    table(("layer", "no gradient, because", "positions"), rows, left=2)
    out = screen()
    drawn = "" if calibration.positions is None else f", at most {calibration.positions:,} positions of each"
    out.print(
        f"{calibration.samples:,} samples{drawn}, loss {calibration.loss}, average {calibration.average}"
    )
    if calibration.memory is not None:
        out.print(words.memory(calibration.memory), soft_wrap=True)
    out.print(f"written: {calibration.output}", soft_wrap=True)


def print_packing(report: Repacking) -> None:
    """How many weights are stored otherwise now, and what that costs or saves."""
    out = screen()
    said, none = _REPACKED[type(report)]
    found = f"{len(report.weights):,} {said}" if report.weights else none
    out.print(f"{found}: {report.bytes_before:,} → {report.bytes_after:,} bytes")
    out.print(f"written: {report.output}", soft_wrap=True)


def print_finetuning(report: FinetuneReport) -> None:
    """The epochs, then the totals before and after."""
    name = report.metric.name if report.metric is not None else ""
    rows = [
        (
            str(row.epoch) if row.epoch else "start",
            "" if row.loss is None else words.number(row.loss),
            *([] if row.metric is None else [words.figure(name, row.metric), words.fate(row, report.best)]),
        )
        for row in report.epochs
    ]
    table(("epoch", "loss", *([name, ""] if name else [])), rows, left=1)
    _skipped("not trained", report.skipped)
    totals = [
        ("nonzero parameters", "", f"{report.nonzero:,}"),
        ("bytes", f"{report.bytes_before:,}", words.count(report.bytes_after)),
    ]
    if report.metric is not None:
        metric = report.metric
        totals.append(
            (metric.name, words.figure(metric.name, metric.before), words.figure(metric.name, metric.after))
        )
    table(("", "before", "after"), totals, left=1)
    out = screen()
    out.print(f"objective: {report.objective}", soft_wrap=True)
    out.print(f"data: {report.data}", soft_wrap=True)
    out.print(f"time: {report.seconds:.1f} s on {report.device}", soft_wrap=True)
    if report.output is not None:
        out.print(f"written: {report.output}", soft_wrap=True)


def print_inspection(inspection: Inspection) -> None:
    """The layers of a model, and what is none with the reason."""
    known = inspection.statistics is not None
    rows = [
        (
            row.name,
            row.op,
            words.shape(row.shape),
            f"{row.weights:,}",
            words.percent(row.density),
            words.count(row.macs),
            *([_share(row.importance), words.number(row.loss_per_weight)] * known),
        )
        for row in inspection.layers
    ]
    sensitivity = ("importance", "loss a weight") * known
    table(("layer", "op", "shape", "weights", "nonzero", "MACs", *sensitivity), rows, left=2)
    families = [
        (
            row.name,
            words.names(row.readers),
            f"{row.units:,}",
            f"{row.parameters:,}",
            words.count(row.macs),
            *([_range(row.costs)] * known),
        )
        for row in inspection.units
    ]
    if families:
        columns = ("units made by", "read by", "units", "parameters a unit", "MACs a unit")
        table((*columns, *["loss a unit"] * known), families, left=2)
    _skipped("not prunable", inspection.skipped)
    _skipped("units that stay", inspection.frozen)
    _skipped("changed on loading", inspection.notes)
    prunable = sum(row.weights for row in inspection.layers)
    out = screen()
    out.print(f"inputs: {', '.join(inspection.inputs)}", soft_wrap=True)
    out.print(f"outputs: {', '.join(inspection.outputs)}", soft_wrap=True)
    out.print(
        f"{inspection.bytes:,} bytes, opset {inspection.opset_before}, {inspection.parameters:,} parameters, "
        f"{prunable:,} of them prunable weights in {len(inspection.layers)} layers",
        soft_wrap=True,
    )


def print_metrics(metrics: Metrics) -> None:
    """Every figure of one evaluation."""
    table(("metric", "value"), [(n, words.figure(n, value)) for n, value in metrics.values.items()], left=1)
    screen().print(f"data: {metrics.data}", soft_wrap=True)


def print_bench(report: BenchReport) -> None:
    """What each model costs, then its latency at every batch size."""
    costs = [
        (
            row.model,
            f"{row.bytes:,}",
            words.count(row.macs),
            f"{1e3 * row.load_seconds:,.1f}",
            f"{row.peak_bytes / 1e6:,.1f}",
        )
        for row in report.models
    ]
    table(("model", "bytes", "MACs per sample", "load ms", "peak memory MB"), costs, left=1)
    latencies = [
        (
            row.model,
            f"{entry.batch:,}",
            *_spread(entry.seconds, 1e3, ".3f"),
            *_spread(entry.speedup, 1, ".2f"),
        )
        for batch in zip(*(row.latency for row in report.models), strict=True)
        for row, entry in zip(report.models, batch, strict=True)
    ]
    table(("model", "batch", "median ms", "10–90 %", "speed-up", "10–90 %"), latencies, left=1)
    out = screen()
    threads = f"{report.threads} thread{'s' * (report.threads > 1)}"
    out.print(f"{report.runs:,} rounds of one call each, {threads}, {report.provider}", soft_wrap=True)
    out.print(f"data: {report.data}", soft_wrap=True)


def _trials(goal: GoalReport) -> None:
    rows = [
        (f"{trial.value:g}", words.counted(goal, trial.reached), words.verdict(goal, trial))
        for trial in sorted(goal.trials, key=lambda trial: -trial.value)
    ]
    table((f"tried --{goal.target}", words.counts(goal), ""), rows, left=0)


def _skipped(title: str, entries: Iterable[Skipped]) -> None:
    rows = [(entry.name, entry.reason) for entry in entries]
    if rows:
        table((title, "why"), rows, left=2)


def _share(value: float | None) -> str:
    return "" if value is None else words.percent(value)


def _range(costs: tuple[float, ...] | None) -> str:
    return f"{min(costs):.3g} to {max(costs):.3g}" if costs else ""


def _spread(value: Spread | None, scale: float, form: str) -> tuple[str, str]:
    if value is None:
        return "", ""
    return f"{scale * value.median:{form}}", f"{scale * value.p10:{form}}–{scale * value.p90:{form}}"
