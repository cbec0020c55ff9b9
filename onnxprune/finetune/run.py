"""A whole fine-tuning as one call: load, check, train, write, report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data import Data, Source, open_data
from onnxprune.evaluate import evaluate
from onnxprune.finetune.batches import digest
from onnxprune.finetune.distributed import processes
from onnxprune.finetune.module import from_module
from onnxprune.finetune.objective import Objective
from onnxprune.finetune.preparation import hold_back, make_networks, prepare, require_divisible
from onnxprune.finetune.training import HELD_BACK, Figure, Trainer, figure_of
from onnxprune.model import Model, load, parameters
from onnxprune.options import Training, resolve_training
from onnxprune.output import METADATA_KEY, save_packed
from onnxprune.progress import Progress, Silent
from onnxprune.report import schema
from onnxprune.report.versions import versions

_UNCHOSEN = "too few samples to hold any back: the last weights are kept, whether or not they are better"


@dataclass
class Result:
    """A fine-tuning: its report, and the model with the new weights, not packed."""

    report: schema.FinetuneReport
    model: Model


def train(
    model: str | Path | Model,
    data: Source | None,
    *,
    output: str | Path | None = None,
    evaluation: Source | None = None,
    teacher: str | Path | Model | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Train the weights that a model has left, and write it as the same graph.

    Of several processes that torch's launcher started, the first writes and has the best weights.

    Args:
        model: an ONNX file, packed or not, or one loaded with `onnxprune.load`.
        data: what to train on, as for `onnxprune.compress`; labels are needed unless there is a teacher.
        output: where to write; nothing is written if None.
        evaluation: measured after every epoch and before the first, by labels or against the teacher: the
            best weights are kept. If None, they are chosen by the loss on the share `holdout` of `data`,
            which is not trained on.
        teacher: the model to learn from, such as the one this was pruned from.
        checkpoint: where the state is saved, at least once an epoch. If the file is there, the run goes on
            from it, with the same result as if it had never stopped. Deleted when the output is written.
        progress: told of every step, with the loss.
        options: fields of `options.Training`, such as epochs=20.

    Raises:
        OnnxPruneError: one of its kinds, with a message for a person.
    """
    chosen, start = resolve_training(**options), time.perf_counter()
    progress = progress or Silent()
    loaded = model if isinstance(model, Model) else load(model)
    dense = load(teacher) if isinstance(teacher, str | Path) else teacher
    with processes(chosen.device) as here:
        progress = progress if here.first else Silent()
        whole = _open(loaded, data, chosen, progress)
        source, held = hold_back(whole, chosen) if evaluation is None else (whole, None)
        require_divisible(source, here)
        networks = make_networks(loaded, dense, source, chosen, here)
        notes = prepare(loaded, networks, source, chosen, here)
        measured_on = held
        if evaluation is not None:
            measured_on = _open(loaded, evaluation, chosen, progress, every=True)

        def measure() -> Figure:
            assert measured_on is not None
            if measured_on is held:
                loss = networks.loss(measured_on, here.device)
                return Figure(HELD_BACK, loss, [-loss])
            tuned = from_module(networks.student, loaded).ir
            reference = dense.ir if dense is not None else None
            return figure_of(evaluate(tuned, measured_on, reference=reference, progress=progress))

        trainer = Trainer(
            networks,
            source,
            chosen,
            here,
            measure if measured_on is not None else None,
            _identity(loaded, dense, whole, measured_on, chosen),
            Path(checkpoint) if checkpoint is not None else None,
        )
        trainer.train(progress)
        tuned = from_module(networks.student, loaded)
        written = None
        if output is not None and here.first:
            written = _write(tuned, Path(output), whole, chosen)
            if checkpoint is not None:
                Path(checkpoint).unlink(missing_ok=True)
        here.wait()
    if trainer.take_step.unrecorded:
        notes = [*notes, ("training step", f"not recorded as a CUDA graph: {trainer.take_step.unrecorded}")]
    report = _describe(loaded, dense, tuned, whole, trainer)
    if measured_on is None and chosen.holdout:
        report = report.model_copy(update={"warnings": (*report.warnings, _UNCHOSEN)})
    report = report.model_copy(
        update={
            "output": None if output is None else str(output),
            "bytes_after": written,
            "skipped": tuple(schema.Skipped(name=name, reason=reason) for name, reason in notes),
            "seconds": round(time.perf_counter() - start, 3),
        }
    )
    return Result(report, tuned)


def _describe(
    model: Model, teacher: Model | None, tuned: Model, data: Data, trainer: Trainer
) -> schema.FinetuneReport:
    position, here = trainer.run.position, trainer.processes
    rows = {row["epoch"]: row for row in position.epochs}
    metric = None
    if position.best is not None:
        first, best = rows[0], rows[position.best]
        metric = schema.MetricChange(name=first["name"], before=first["metric"], after=best["metric"])
    return schema.FinetuneReport(
        model=str(model.path or "model"),
        sha256=model.sha256,
        teacher=None if teacher is None else str(teacher.path or "model"),
        objective=_words(trainer.networks.objective),
        epochs=tuple(
            schema.EpochRow(
                epoch=epoch,
                loss=row["loss"],
                metric=row.get("metric"),
                returned=row.get("returned", False),
            )
            for epoch, row in rows.items()
        ),
        best=position.best,
        metric=metric,
        trained=sum(parameter.numel() for parameter in trainer.run.parameters.values()),
        nonzero=sum(int(np.count_nonzero(tensor.numpy())) for tensor in parameters(tuned).values()),
        bytes_before=model.bytes,
        data=trainer.data.description,
        device=f"{here.device.type}, {here.count} process{'es' * (here.count > 1)}",
        seconds=0.0,
        warnings=(*((data.description,) if data.synthetic else ()), *data.notes),
        options=trainer.options.model_dump(mode="json"),
        versions=versions("torch"),
    )


def _open(
    model: Model, data: Source | None, options: Training, progress: Progress, *, every: bool = False
) -> Data:
    return open_data(
        data,
        model.graph.inputs,
        samples=None if every else options.samples,
        batch_size=options.batch_size,
        seed=options.seed,
        progress=progress,
    )


def _identity(
    model: Model, teacher: Model | None, data: Data, evaluation: Data | None, options: Training
) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    return {
        "model": model.sha256,
        "teacher": teacher.sha256 if teacher is not None else None,
        "data": digest(data),
        "evaluation data": digest(evaluation) if evaluation is not None else None,
        "options": options.model_dump(mode="json", exclude={"device", "pack"}),
    }


def _write(tuned: Model, output: Path, data: Data, options: Training) -> int:
    return save_packed(
        tuned.ir,
        tuned.ir,
        output,
        next(data.batches()).feeds,
        packing=options.pack,
        provider="cpu",
        metadata={METADATA_KEY: _record(tuned, options)},
    )


def _record(tuned: Model, options: Training) -> str:
    """How the file was made, as JSON: what it said before, and this."""
    try:
        before = json.loads(tuned.ir.metadata_props.get(METADATA_KEY, "{}"))
    except ValueError:
        before = {}
    own = {"version": version("onnxprune"), "options": options.model_dump(mode="json")}
    return json.dumps({**(before if isinstance(before, dict) else {}), "finetuned": own}, sort_keys=True)


def _words(objective: Objective) -> str:
    parts = {"labels": objective.labels, "distillation": objective.distillation}
    return ", ".join(f"{name} × {weight:g}" for name, weight in parts.items() if weight)
