"""The main job as one call: load, calibrate, prune, clean up, pack, write, measure.

Each stage is another module's work; here is only their order, their clocks and the report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.budget import require, select
from onnxprune.cut import Evidence, decide, remove_cut
from onnxprune.data import Data, Source, open_data
from onnxprune.evaluate import evaluate
from onnxprune.layers import Skipped, find_layers
from onnxprune.model import Model, load
from onnxprune.options import Options, resolve
from onnxprune.output import METADATA_KEY, save_packed
from onnxprune.passes.cleanup import cleanup
from onnxprune.passes.dead_units import remove_dead_units
from onnxprune.plan import Plan
from onnxprune.progress import Progress, Silent
from onnxprune.prune import make_plan, prune
from onnxprune.report import schema
from onnxprune.report.compression import describe
from onnxprune.saliency import NEEDS_GRADIENTS, NEEDS_STATISTICS
from onnxprune.speeds import measure
from onnxprune.statistics import Gathering, Statistics, collect
from onnxprune.statistics import save as save_statistics
from onnxprune.statistics.opening import open_calibration, open_statistics
from onnxprune.task import Gather, make_task


@dataclass
class Result:
    """A compression: the report, the pruned graph before packing, and the plan that made it."""

    report: schema.CompressionReport
    model: ir.Model
    plan: Plan


@dataclass
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


def compress(
    model: str | Path | Model,
    data: Source | None = None,
    *,
    output: str | Path | None = None,
    evaluation: Source | None = None,
    statistics: str | Path | Statistics | Sequence[str | Path | Statistics] | None = None,
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
        recipe: one of `options.RECIPES`.
        progress: told of every long stage.
        options: fields of `options.Options`, such as ratio=0.04.

    Raises:
        OnnxPruneError: one of its kinds, with a message for a person.
    """
    chosen = resolve(recipe, **options)
    clock, progress = Clock(), progress or Silent()
    with clock.stage("load"):
        loaded = model if isinstance(model, Model) else load(model)
        layers = find_layers(loaded.ir.graph)
        require(layers.layers, layers.skipped)
        source = open_calibration(loaded, data, chosen.samples, chosen.batch_size, chosen.seed, progress)
        measured_on = source
        if evaluation is not None:
            inputs = loaded.ir.graph.inputs
            measured_on = open_data(
                evaluation, inputs, batch_size=source.batch_size, seed=chosen.seed, progress=progress
            )
    with clock.stage("statistics"):
        known = _statistics(loaded, source, _listed(statistics), chosen, progress)
    usable, left_out = select(layers.layers, chosen, _blocked(known, chosen))
    require(usable, [*layers.skipped, *left_out])
    cut = None
    if chosen.prunes_units:
        with clock.stage("units"):
            speeds = measure(loaded.ir, chosen.provider) if chosen.round_to == "auto" else None
            evidence = Evidence(source, known, _gathering(chosen), progress, speeds)
            cut = decide(loaded.ir, layers, chosen, evidence)
    with clock.stage("prune"):
        gather = _gather(loaded, source, chosen, progress)
        task = make_task(loaded.ir, source, known, usable, cut, chosen, gather, progress)
        pruned = prune(task)
    plan = make_plan(loaded.sha256, chosen, pruned, cut)
    with clock.stage("clean up"):
        before_removal = pruned.model.clone()
        if cut is not None:
            remove_cut(pruned.model, cut)
            if (
                cut.approximate
            ):  # then removing is not silencing, and the graph without the units is the truth
                before_removal = pruned.model.clone()
        dead = remove_dead_units(pruned.model)
        cleanup(pruned.model)
        skipped = [*layers.skipped, *left_out, *(cut.skipped if cut is not None else ())]
        skipped += [Skipped(note.name, note.reason) for note in dead.kept]
    written = None
    if output is not None:
        with clock.stage("write"):
            written = _write(pruned.model, before_removal, Path(output), source, chosen)
    with clock.stage("evaluate"):
        metric, notes = _measure(loaded.ir, pruned.model, measured_on, chosen, progress)
    report = describe(loaded, pruned, cut, known, source, chosen).model_copy(
        update={
            "seconds": clock.seconds,
            "output": None if output is None else str(output),
            "bytes_after": written,
            "metric": metric,
            "skipped": tuple(schema.Skipped(name=entry.name, reason=entry.reason) for entry in skipped),
        }
    )
    report = report.model_copy(update={"warnings": (*report.warnings, *notes)})
    return Result(report, pruned.model, plan)


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
    statistics = collect(loaded.ir, loaded.sha256, source, how, progress)
    if output is not None:
        save_statistics(statistics, Path(output))
    return statistics


def _listed(
    given: str | Path | Statistics | Sequence[str | Path | Statistics] | None,
) -> Sequence[str | Path | Statistics]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str | Path | Statistics) else given


def _statistics(
    model: Model, data: Data, given: Sequence[str | Path | Statistics], options: Options, progress: Progress
) -> Statistics | None:
    if given:
        return open_statistics(model, given)
    if not (_weights_need_statistics(options) or _units_need_statistics(options)):
        return None
    return _gather(model, data, options, progress)(model.ir)


def _gather(model: Model, data: Data, options: Options, progress: Progress) -> Gather:
    how = _gathering(options)
    return lambda graph: collect(graph, model.sha256, data, how, progress)


def _gathering(options: Options) -> Gathering:
    for_units = options.prunes_units and options.score == "kfac"
    return Gathering(
        loss=options.loss,
        gradients=for_units or _weights_need_gradients(options),
        average=options.average,
        seed=options.seed,
        provider=options.provider,
        positions=options.positions,
    )


def _weights_need_statistics(options: Options) -> bool:
    return options.prunes_weights and (options.saliency in NEEDS_STATISTICS or options.surgeon != "none")


def _weights_need_gradients(options: Options) -> bool:
    ranked = options.saliency in NEEDS_GRADIENTS or options.surgeon in ("paper", "joint")
    return options.prunes_weights and (ranked or options.allocation == "balanced")


def _units_need_statistics(options: Options) -> bool:
    needed = options.score == "kfac" or options.replace == "mean" or options.macs is not None
    return options.prunes_units and needed


def _blocked(statistics: Statistics | None, options: Options) -> dict[str, str]:
    """Layers whose weights cannot be pruned for want of a gradient."""
    return statistics.blocked if statistics is not None and _weights_need_gradients(options) else {}


def _write(model: ir.Model, before_removal: ir.Model, output: Path, data: Data, options: Options) -> int:
    """Pack and save; checked against the pruned graph before dead units went and weights were packed."""
    described = options.model_dump(mode="json")
    record = {"version": version("onnxprune"), "recipe": options.recipe, "options": described}
    return save_packed(
        model,
        before_removal,
        output,
        next(data.batches()).feeds,
        packing=options.pack,
        provider=options.provider,
        metadata={METADATA_KEY: json.dumps(record, sort_keys=True)},
    )


def _measure(
    dense: ir.Model, pruned: ir.Model, data: Data, options: Options, progress: Progress
) -> tuple[schema.MetricChange, tuple[str, ...]]:
    """Accuracy where the data has class labels, else how close the pruned outputs are to the dense ones."""
    given: dict[str, Any] = {"reference": dense, "provider": options.provider, "progress": progress}
    ideal, measured = evaluate(dense, data, **given), evaluate(pruned, data, **given)
    name = measured.primary
    change = schema.MetricChange(name=name, before=ideal.values[name], after=measured.values[name])
    return change, measured.notes
