"""Evaluate: how good a model is on labelled data, or how far it is from the model it was made from.

With integer labels and an output [batch, classes]: cross-entropy loss, top-1 and top-5 accuracy. With a
reference model: cosine similarity, relative and mean squared error over all float outputs and, where the
first of them is a classifier's, agreement (equal argmax) and KL(reference ‖ model), averaged over all axes
but the last. Of a model without any float output, agreement is the share of equal numbers. Whether a head
gives logits or probabilities is seen from its values. Only sums are kept.

A metric of one's own is a function over all samples (see `onnxprune.metric`); it is then the primary figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from onnxprune.data import BATCH_SIZE, Batch, Data, Source, open_data, try_batch
from onnxprune.errors import DataError, ModelError
from onnxprune.figures import Figures, floats, is_classes
from onnxprune.intervals import Interval, paired_drop
from onnxprune.metric import Metric, Record, own_metric
from onnxprune.progress import Progress, Silent
from onnxprune.session import Array, Provider, Session

ROUNDING = 1e-9  # figures are quotients of float64 sums: nearer to a limit than that is on it
_PRIMARY = ("top1", "agreement", "cosine")


class Metrics(BaseModel):
    """Figures of merit over `count` samples; `primary` is the key of the one a report shows.

    Keys: top1, top5, loss; agreement, kl (nats); cosine, mse, relative_error (‖y − r‖ / ‖r‖); the name of a
    metric of one's own.
    """

    model_config = ConfigDict(frozen=True)

    count: int
    values: dict[str, float]
    primary: str
    data: str
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The primary figure."""
        return self.values[self.primary]


@dataclass(frozen=True)
class Measured:
    """An evaluation, and, where the primary figure is a share of the samples, which of them count: bool [n].

    Samples stand in the data's order, so that two models can be compared sample by sample.
    """

    metrics: Metrics
    hits: npt.NDArray[np.bool_] | None

    def drop(self, dense: Measured) -> float:
        """By how much the primary figure is below the dense model's, in its own unit."""
        return dense.metrics.value - self.metrics.value

    def drop_interval(self, dense: Measured) -> Interval | None:
        """Of the drop at 95 %, where the figure is a share of samples."""
        if dense.hits is None or self.hits is None:
            return None
        return paired_drop(dense.hits, self.hits)


def evaluate(
    model: ir.Model | Path | str,
    data: Data | Source | None,
    *,
    reference: ir.Model | Path | str | None = None,
    metric: Metric | str | None = None,
    provider: Provider = "auto",
    batch_size: int = BATCH_SIZE,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Measure `model` on `data`, against its labels and against `reference`, whichever there are.

    A source is opened with `batch_size`, `samples` and `seed` (None is noise); `Data` is taken as it is.
    Labels that cannot be used are an error without a reference, a note with one; a `metric` of one's own, a
    function or its name `module:function`, takes any, and then neither is needed.

    Raises:
        DataError: neither usable labels nor a reference, or labels that do not fit the output.
        ModelError: a model that cannot be run, gives NaN or Inf, or has not the reference's outputs.
        PluginError, UsageError: from the metric.
    """
    session = _session(model, provider)
    if not isinstance(data, Data):
        graph = model.graph if isinstance(model, ir.Model) else ir.load(model).graph
        data = open_data(
            data, graph.inputs, batch_size=batch_size, samples=samples, seed=seed, progress=progress
        )
    return _measured(session, data, reference, metric, provider, progress).metrics


def measure(
    model: ir.Model | Path | str,
    data: Data,
    *,
    reference: ir.Model | Path | str | None = None,
    metric: Metric | str | None = None,
    provider: Provider = "auto",
    progress: Progress | None = None,
) -> Measured:
    """What `evaluate` does, with the outcome of every sample."""
    return _measured(_session(model, provider), data, reference, metric, provider, progress)


def _measured(
    session: Session,
    data: Data,
    reference: ir.Model | Path | str | None,
    metric: Metric | str | None,
    provider: Provider,
    progress: Progress | None,
) -> Measured:
    own = own_metric(metric)
    other = _session(reference, provider) if reference is not None else None
    first = try_batch(session, data)
    problem = _label_problem(data, first)
    if problem and other is None and own is None:
        raise DataError(f"{data.description}: {problem}; compare with a reference model instead")
    figures, record = Figures(), Record()
    with (progress or Silent()).stage("evaluation", data.count) as advance:
        for batch in data.batches():
            outputs, wanted = _outputs(session, batch), None if other is None else _outputs(other, batch)
            if own is not None:
                record.add(outputs, batch.labels, wanted)
            if not problem:
                figures.against_labels(floats(outputs), batch)
            if wanted is not None:
                figures.against_reference(outputs, wanted, batch.count)
            advance(batch.count)
    values = figures.means()
    if own is not None:
        values[own.name] = own.value(record)
    primary = own.name if own is not None else next(name for name in _PRIMARY if name in values)
    unused = (f"labels not used: {problem}",) if problem and data.labelled and own is None else ()
    doubts = () if problem else _class_doubts(data, first)
    metrics = Metrics(
        count=data.count,
        values=values,
        primary=primary,
        data=data.description,
        notes=(*data.notes, *unused, *doubts),
    )
    return Measured(metrics, None if own is not None else figures.hits(primary, data.count))


def _label_problem(data: Data, outputs: Mapping[str, Array]) -> str | None:
    """Why the labels cannot be used; None if they can."""
    labels = [part.labels for part in data.parts if part.labels is not None]
    if not data.labelled:
        return "it has no labels"
    odd = next((array for array in labels if array.dtype.kind not in "biu" or array.size != len(array)), None)
    if odd is not None:
        return f"its labels are {odd.dtype} {list(odd.shape)}, not one class number a sample"
    if not any(is_classes(y) for y in floats(outputs).values()):
        found = ", ".join(f"'{name}' {list(y.shape)}" for name, y in outputs.items())
        return f"class labels need an output [batch, classes], the model has {found}"
    return None


def _class_doubts(data: Data, outputs: Mapping[str, Array]) -> tuple[str, ...]:
    """That names were numbered, but not as many as the model has classes."""
    classes = next(y for y in floats(outputs).values() if is_classes(y)).shape[1]
    if data.classes is None or data.classes == classes:
        return ()
    return (
        f"{data.description}: the labels are names of {data.classes:,} classes, the model has {classes:,}; "
        "where one is missing, all after it have the wrong number: give the numbers in a labels.csv",
    )


def _outputs(session: Session, batch: Batch) -> dict[str, Array]:
    """The outputs for one batch."""
    outputs = session.run(batch.feeds)
    broken = next((name for name, y in floats(outputs).items() if not np.isfinite(y).all()), None)
    if broken is not None:
        raise ModelError(f"the model gives NaN or Inf in its output '{broken}'; it cannot be measured")
    return outputs


def _session(model: ir.Model | Path | str, provider: Provider) -> Session:
    return Session(model if isinstance(model, ir.Model) else Path(model), provider)
