"""The main job as one call: load, calibrate, prune, clean up, pack, write, measure.

Each stage is another module's work; here is only their order, their clocks and the report.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.budget import Budget, make_budget, require, select
from onnxprune.data import Batch, Data, Source, open_data
from onnxprune.data.inputs import fixed_batch
from onnxprune.emit import Emitter
from onnxprune.errors import StatisticsError
from onnxprune.evaluate import evaluate
from onnxprune.layers import Layer, Skipped, find_layers
from onnxprune.model import Model, load, parameters
from onnxprune.options import Options, resolve
from onnxprune.output import METADATA_KEY, save
from onnxprune.passes.cleanup import cleanup
from onnxprune.passes.dead_units import remove_dead_units
from onnxprune.passes.pack import pack, unpack
from onnxprune.plan import Plan
from onnxprune.progress import Progress, Silent
from onnxprune.prune import Gather, Pruned, Task, prune
from onnxprune.report import schema
from onnxprune.saliency import NEEDS_GRADIENTS, NEEDS_STATISTICS
from onnxprune.session import Session
from onnxprune.statistics import Gathering, Statistics, collect, merge
from onnxprune.statistics import load as load_statistics
from onnxprune.statistics import save as save_statistics

_FEATURE_BYTES = 256 << 20  # the widest im2col of one batch


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
        data: calibration data: an npz or npy file, an array, a dict of arrays, or a list of feeds; if None,
            noise.
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
        source = open_calibration(loaded, data, chosen.samples, chosen.batch_size, chosen.seed)
        measured_on = source
        if evaluation is not None:
            inputs = loaded.ir.graph.inputs
            measured_on = open_data(evaluation, inputs, batch_size=source.batch_size, seed=chosen.seed)
    with clock.stage("statistics"):
        known = _statistics(loaded, source, _listed(statistics), chosen, progress)
    usable, left_out = select(layers.layers, chosen, _blocked(known, chosen))
    require(usable, [*layers.skipped, *left_out])
    budget = make_budget(loaded.ir, usable, chosen, biases_change=chosen.surgeon != "none")
    with clock.stage("prune"):
        task = Task(
            loaded.ir, source, known, budget, chosen, _gather(loaded, source, chosen, progress), progress
        )
        pruned = prune(task)
    plan = Plan(loaded.sha256, chosen.model_dump(mode="json"), pruned.kept, pruned.importance)
    with clock.stage("clean up"):
        before_removal = pruned.model.clone()
        dead = remove_dead_units(pruned.model)
        cleanup(pruned.model)
        skipped = [*layers.skipped, *left_out, *(Skipped(note.name, note.reason) for note in dead.kept)]
    written = None
    if output is not None:
        with clock.stage("write"):
            written = _write(pruned.model, before_removal, Path(output), source, chosen)
    with clock.stage("evaluate"):
        metric, notes = _measure(loaded.ir, pruned.model, measured_on, chosen, progress)
    report = _report(loaded, pruned, budget, known, source, chosen, clock)
    report = report.model_copy(
        update={
            "output": None if output is None else str(output),
            "bytes_after": written,
            "metric": metric,
            "warnings": (*report.warnings, *notes),
            "skipped": tuple(schema.Skipped(name=entry.name, reason=entry.reason) for entry in skipped),
        }
    )
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
    source = open_calibration(loaded, data, samples, batch_size, how.seed)
    statistics = collect(loaded.ir, loaded.sha256, source, how, progress)
    if output is not None:
        save_statistics(statistics, Path(output))
    return statistics


def open_calibration(
    model: Model, data: Source | None, samples: int | None, batch_size: int, seed: int
) -> Data:
    """Open the data, with batches small enough that no layer's im2col exceeds a fixed size.

    The shapes are those of a run of the first sample: symbolic ones say nothing.
    """
    source = open_data(data, model.ir.graph.inputs, samples=samples, batch_size=batch_size, seed=seed)
    if fixed_batch(source.inputs) is not None:
        return source
    first = next(iter(replace(source, batch_size=1).batches()))
    widest = max(1, _widest_features(model.ir, first))
    return replace(source, batch_size=max(1, min(source.batch_size, _FEATURE_BYTES // widest)))


def _widest_features(model: ir.Model, batch: Batch) -> int:
    """Bytes of the largest im2col of `batch` in float32."""
    graph = model.clone()
    op = Emitter(graph.graph, "shapes")
    uses = [(layer, use) for layer in find_layers(graph.graph) for use in layer.uses]
    if not uses:
        return 0
    graph.graph.outputs.clear()
    for index, (_, use) in enumerate(uses):
        shape = op.Shape(use.output)
        shape.name, shape.dtype = f"shape/{index}", ir.DataType.INT64
        graph.graph.outputs.append(shape)
    shapes = Session(graph, "cpu").run(batch.feeds)
    return max(
        4 * layer.d_in * int(np.prod(shapes[f"shape/{index}"])) // layer.d_out
        for index, (layer, _) in enumerate(uses)
    )


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
        parts = [part if isinstance(part, Statistics) else load_statistics(Path(part)) for part in given]
        statistics = merge(parts)
        statistics.require(model.sha256)
        missing = [layer.name for layer in find_layers(model.ir.graph) if layer.name not in statistics.layers]
        if missing:
            raise StatisticsError(
                f"the statistics lack layer {missing[0]!r}; run `onnxprune calibrate` again"
            )
        return statistics
    if options.saliency not in NEEDS_STATISTICS and options.surgeon == "none":
        return None
    return _gather(model, data, options, progress)(model.ir)


def _gather(model: Model, data: Data, options: Options, progress: Progress) -> Gather:
    how = Gathering(
        loss=options.loss,
        gradients=_needs_gradients(options),
        average=options.average,
        seed=options.seed,
        provider=options.provider,
    )
    return lambda graph: collect(graph, model.sha256, data, how, progress)


def _needs_gradients(options: Options) -> bool:
    ranked = options.saliency in NEEDS_GRADIENTS
    return ranked or options.surgeon in ("paper", "joint") or options.allocation == "balanced"


def _blocked(statistics: Statistics | None, options: Options) -> dict[str, str]:
    return statistics.blocked if statistics is not None and _needs_gradients(options) else {}


def _write(model: ir.Model, before_removal: ir.Model, output: Path, data: Data, options: Options) -> int:
    """Pack and save; checked against the pruned graph before dead units went and weights were packed."""
    packed = model.clone()
    if options.pack != "none":
        pack(packed, options.pack)
    reference = before_removal
    if options.pack == "fp16":
        reference = packed.clone()
        unpack(reference)
    feeds = next(data.batches()).feeds
    expected = Session(reference, options.provider, optimise=False).run(feeds)
    described = options.model_dump(mode="json")
    record = {"version": version("onnxprune"), "recipe": options.recipe, "options": described}
    metadata = {METADATA_KEY: json.dumps(record, sort_keys=True)}
    return save(packed, output, expected=[(feeds, expected)], metadata=metadata)


def _measure(
    dense: ir.Model, pruned: ir.Model, data: Data, options: Options, progress: Progress
) -> tuple[schema.MetricChange, tuple[str, ...]]:
    """Accuracy where the data has class labels, else how close the pruned outputs are to the dense ones."""
    given: dict[str, Any] = {"reference": dense, "provider": options.provider, "progress": progress}
    ideal, measured = evaluate(dense, data, **given), evaluate(pruned, data, **given)
    name = measured.primary
    change = schema.MetricChange(name=name, before=ideal.values[name], after=measured.values[name])
    return change, measured.notes


def _report(
    loaded: Model,
    pruned: Pruned,
    budget: Budget,
    statistics: Statistics | None,
    data: Data,
    options: Options,
    clock: Clock,
) -> schema.CompressionReport:
    after = parameters(pruned.model)
    nonzero = sum(int(np.count_nonzero(tensor.numpy())) for tensor in after.values())
    before_layers = {layer.name: layer for layer in find_layers(loaded.ir.graph)}
    after_layers = {layer.name: layer for layer in find_layers(pruned.model.graph)}
    positions = _positions(before_layers, statistics)
    return schema.CompressionReport(
        model=str(loaded.path or "model"),
        kept_ratio=nonzero / budget.total,
        params_before=budget.total,
        params_after=sum(tensor.size for tensor in after.values()),
        nonzero_after=nonzero,
        macs_before=_macs(before_layers, positions),
        macs_after=_macs(after_layers, positions),
        bytes_before=loaded.bytes,
        layers=tuple(
            schema.LayerRow(
                name=layer.name,
                op=layer.op,
                shape=layer.shape,
                kept=_nonzero(after_layers.get(layer.name)) / layer.size,
                importance=pruned.importance.get(layer.name),
            )
            for layer in before_layers.values()
        ),
        data=data.description,
        loss=statistics.loss if statistics is not None else "none",
        opset_before=loaded.opset_before,
        opset_after=loaded.ir.opset_imports.get("", 0),
        seconds=clock.seconds,
        warnings=(*((data.description,) if data.synthetic else ()), *data.notes),
        options=options.model_dump(mode="json"),
        versions={name: version(name) for name in ("onnxprune", "onnx", "onnx_ir", "numpy", "scipy")}
        | {"python": platform.python_version()},
    )


def _positions(layers: dict[str, Layer], statistics: Statistics | None) -> dict[str, float | None]:
    """Positions per sample: measured where there are statistics, else from static shapes."""
    if statistics is not None:
        return {name: known.positions for name, known in statistics.layers.items()}
    return {
        name: layer.macs / layer.size if layer.macs is not None else None for name, layer in layers.items()
    }


def _macs(layers: dict[str, Layer], positions: dict[str, float | None]) -> int | None:
    counts = [positions.get(name) for name in layers]
    if any(count is None for count in counts):
        return None
    return round(sum(layer.size * (count or 0) for layer, count in zip(layers.values(), counts, strict=True)))


def _nonzero(layer: Layer | None) -> int:
    return 0 if layer is None else int(np.count_nonzero(layer.read()[0]))
