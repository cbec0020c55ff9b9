"""The main job as one call: load, calibrate, prune, clean up, pack, write, measure.

Each stage is another module's work; here is only their order and the report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.cluster import gather
from onnxprune.data import Data, Source
from onnxprune.evaluate import evaluate
from onnxprune.metric import Metric, own_metric
from onnxprune.model import Model, load
from onnxprune.options import Axis, Options, resolve
from onnxprune.output import METADATA_KEY, packed_bytes, save_packed
from onnxprune.plan import Plan
from onnxprune.prepared import Candidate, Prepared
from onnxprune.progress import Progress
from onnxprune.prune import make_plan
from onnxprune.report import schema
from onnxprune.report.compression import describe, sizes_of
from onnxprune.report.memory import memory_use
from onnxprune.statistics import Gathering, Statistics
from onnxprune.statistics import save as save_statistics
from onnxprune.statistics.opening import open_calibration

StatisticsSource = str | Path | Statistics | Sequence[str | Path | Statistics] | None


@dataclass
class Result:
    """A compression: the report, the pruned graph before packing, and the plan that made it."""

    report: schema.CompressionReport
    model: ir.Model
    plan: Plan


def compress(
    model: str | Path | Model,
    data: Source | None = None,
    *,
    output: str | Path | None = None,
    evaluation: Source | None = None,
    statistics: StatisticsSource = None,
    metric: Metric | str | None = None,
    recipe: str = "default",
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Prune a model to a share of its parameters and write it as a smaller ONNX file.

    Args:
        model: an ONNX file, or one loaded with `onnxprune.load`.
        data: calibration data: a file or folder, `onnxprune.Images`, arrays, feeds, or a reader of feeds, as
            docs/data.md has them; if None, noise.
        output: where to write; nothing is written if None.
        evaluation: data to measure on before and after; the calibration data against the dense model if None.
        statistics: statistics, or their files, from `calibrate`; several are merged: shards of one data set.
        metric: a figure of merit of one's own, a function or `module:function` (see `onnxprune.metric`).
        recipe: one of `options.RECIPES`.
        progress: told of every long stage.
        options: fields of `options.Options`, such as ratio=0.04.

    Raises:
        OnnxPruneError: one of its kinds, with a message for a person.
    """
    chosen = resolve(recipe, **options)
    own_metric(metric)  # said before any work
    prepared = Prepared(model, data, [chosen], statistics=listed(statistics), progress=progress)
    measured_on = prepared.open_evaluation(evaluation)
    candidate = prepared.prune(chosen)
    written = None if output is None else write(prepared, candidate, Path(output))
    change, notes = measure_change(prepared, candidate, measured_on, metric)
    return finish(prepared, candidate, output, written, metric=change, warnings=notes)


def write(prepared: Prepared, candidate: Candidate, output: Path) -> int:
    """Pack and save a candidate, checked against its graph before dead units went; the bytes written.

    Raises:
        OutputError: it could not be written, or did not survive the check.
    """
    with prepared.clock.stage("write"):
        return save_packed(
            candidate.model,
            candidate.before_removal,
            output,
            next(prepared.few(prepared.source, candidate.options).batches()).feeds,
            packing=candidate.options.pack,
            provider=candidate.options.provider,
            metadata=metadata(candidate.options),
        )


def metadata(options: Options) -> dict[str, str]:
    """What a written file says of how it was made."""
    record = {
        "version": version("onnxprune"),
        "recipe": options.recipe,
        "options": options.model_dump(mode="json"),
    }
    return {METADATA_KEY: json.dumps(record, sort_keys=True)}


def finish(
    prepared: Prepared,
    candidate: Candidate,
    output: str | Path | None,
    written: int | None,
    *,
    warnings: Sequence[str] = (),
    **more: Any,
) -> Result:
    """The result of a candidate that is written and measured; `more` are further fields of its report."""
    known = candidate.statistics
    report = describe(
        prepared.model, candidate.pruned, candidate.cut, known, prepared.source, candidate.options
    )
    report = report.model_copy(
        update={
            "seconds": prepared.clock.seconds,
            "output": None if output is None else str(output),
            "bytes_after": written,
            "skipped": tuple(schema.Skipped(name=e.name, reason=e.reason) for e in candidate.skipped),
            "warnings": (*report.warnings, *warnings),
            "memory": memory_use(None if known is None else known.plan, prepared.predicted),
            **more,
        }
    )
    plan = make_plan(prepared.model.sha256, candidate.options, candidate.pruned, candidate.cut)
    return Result(report, candidate.model, plan)


def calibrate(
    model: str | Path | Model,
    data: Source | None = None,
    *,
    output: str | Path | None = None,
    progress: Progress | None = None,
    samples: int | None = None,
    batch_size: int = 32,
    **gathering: Any,
) -> Statistics:
    """Gather statistics once, to compress with several ratios.

    Args:
        model: an ONNX file, or one loaded with `onnxprune.load`.
        data: calibration data, as for `compress`.
        output: where to write the statistics; nothing is written if None.
        progress: told of the run.
        samples: how many to take; all if None.
        batch_size: an upper bound, lowered where a layer's im2col would not fit.
        gathering: fields of `statistics.Gathering`, such as loss="gaussian".

    Raises:
        OnnxPruneError: one of its kinds, with a message for a person.
    """
    loaded = model if isinstance(model, Model) else load(model)
    how = Gathering(**gathering)
    source = open_calibration(loaded, data, samples, batch_size, how.seed, progress)
    statistics = gather(loaded.ir, loaded.sha256, source, how, progress)
    if output is not None:
        save_statistics(statistics, Path(output))
    return statistics


def listed(given: StatisticsSource) -> Sequence[str | Path | Statistics]:
    """What was given as a sequence, empty for None."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str | Path | Statistics) else given


def measure_change(
    prepared: Prepared, candidate: Candidate, data: Data, metric: Metric | str | None
) -> tuple[schema.MetricChange, tuple[str, ...]]:
    """Accuracy where the data has class labels, else how close the pruned outputs are to the dense ones."""
    dense = prepared.model.ir
    data = prepared.few(data, candidate.options)
    given: dict[str, Any] = {"reference": dense, "metric": metric, "progress": prepared.progress}
    given["provider"] = candidate.options.provider
    with prepared.clock.stage("evaluate"):
        ideal, measured = evaluate(dense, data, **given), evaluate(candidate.model, data, **given)
    name = measured.primary
    change = schema.MetricChange(name=name, before=ideal.values[name], after=measured.values[name])
    return change, measured.notes


def curve_point(
    prepared: Prepared, candidate: Candidate, target: Axis, value: float, metric: float
) -> schema.CurvePoint:
    """A candidate that reached so much of the metric, as a point on a curve, its bytes those of a file."""
    sizes = sizes_of(prepared.model, candidate.pruned, candidate.statistics)
    return schema.CurvePoint(
        method=candidate.options.recipe + (", draft" if candidate.draft else ""),
        target=target,
        value=value,
        kept_ratio=sizes.kept_ratio,
        macs=sizes.macs_after,
        bytes=packed_bytes(candidate.model, candidate.options.pack, metadata(candidate.options)),
        metric=metric,
    )
