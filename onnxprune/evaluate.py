"""Evaluate: how good a model is on labelled data, or how far it is from the model it was made from.

With integer labels and an output [batch, classes]: cross-entropy loss, top-1 and top-5 accuracy. With a
reference model: cosine similarity, relative and mean squared error over all float outputs and, where the
first of them is a classifier's, agreement (equal argmax) and KL(reference ‖ model), averaged over all axes
but the last. Of a model without any float output, agreement is the share of equal numbers. Whether a head
gives logits or probabilities is seen from its values. Only sums are kept.

A metric of one's own is a function over all samples (see `onnxprune.metric`); it is then the primary figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from onnxprune.data import BATCH_SIZE, Batch, Data, Source, open_data, try_batch
from onnxprune.errors import DataError, ModelError
from onnxprune.intervals import Interval, paired_drop
from onnxprune.metric import Metric, Record, own_metric
from onnxprune.progress import Progress, Silent
from onnxprune.session import Array, Provider, Session

ROUNDING = 1e-9  # figures are quotients of float64 sums: nearer to a limit than that is on it
_PRIMARY = ("top1", "agreement", "cosine")
_SUM_TOLERANCE = 1e-2  # float16 probabilities of thousands of classes sum to 1 no better than this
_LEAST_LOG = -69.0  # log 1e-30: a probability that underflowed to 0 costs this much, not infinitely much

Logs = npt.NDArray[np.float64]


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
    figures, record = _Figures(), Record()
    with (progress or Silent()).stage("evaluation", data.count) as advance:
        for batch in data.batches():
            outputs, wanted = _outputs(session, batch), None if other is None else _outputs(other, batch)
            if own is not None:
                record.add(outputs, batch.labels, wanted)
            if not problem:
                figures.against_labels(_floats(outputs), batch)
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


class _Figures:
    """Running sums of every figure, each with the weight it is divided by in the end."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._hits: dict[str, list[npt.NDArray[np.bool_]]] = {"top1": [], "agreement": []}

    def hits(self, name: str, count: int) -> npt.NDArray[np.bool_] | None:
        """Whether each of `count` samples counts for the figure `name`; None if it is no share of samples."""
        found = self._hits.get(name, [])
        joined = np.concatenate([*found, np.empty(0, dtype=bool)])
        return joined if len(joined) == count else None

    def means(self) -> dict[str, float]:
        means = {name: total / weight for name, (total, weight) in self._sums.items() if weight}
        if "relative_error" in means:  # so far of squares
            means["relative_error"] **= 0.5
        return means

    def against_labels(self, outputs: Mapping[str, Array], batch: Batch) -> None:
        assert batch.labels is not None
        logs = log_probabilities(next(y for y in outputs.values() if _is_classes(y)))
        labels = batch.labels.reshape(-1).astype(np.int64)
        outside = (labels < 0) | (labels >= logs.shape[1])
        if outside.any():
            classes = f"the model's classes 0..{logs.shape[1] - 1}"
            raise DataError(f"label {labels[outside][0]} is not among {classes}; renumber the labels")
        own = logs[np.arange(len(labels)), labels][:, None]
        before = np.arange(logs.shape[1]) < labels[:, None]  # of equals the first wins, as in argmax
        rank = ((logs > own) | ((logs == own) & before)).sum(1)
        self._add("loss", -own.sum(), len(labels))
        self._add("top1", (rank < 1).sum(), len(labels))
        self._hits["top1"].append(rank < 1)
        if logs.shape[1] > 5:
            self._add("top5", (rank < 5).sum(), len(labels))

    def against_reference(
        self, outputs: Mapping[str, Array], wanted: Mapping[str, Array], count: int
    ) -> None:
        floats = _floats(wanted)
        shapes = {name: y.shape for name, y in outputs.items()}
        different = [name for name, r in (floats or wanted).items() if shapes.get(name) != r.shape]
        if different:
            raise ModelError(
                f"the model cannot be compared with its reference: output '{different[0]}' is missing or of "
                "another shape; is it made from it?"
            )
        if not floats:
            self._against_numbers([(outputs[name], r) for name, r in wanted.items()])
            return
        wanted, first = floats, next(iter(floats))
        if _is_classes(wanted[first]) or _is_probability(wanted[first]):
            self._against_classes(outputs[first], wanted[first])
        for name, r in wanted.items():
            reference, output = r.astype(np.float64), outputs[name].astype(np.float64)
            squares = float(((output - reference) ** 2).sum())
            cosines = _cosines(output, reference, count)
            self._add("cosine", cosines.sum(), len(cosines))
            self._add("mse", squares, output.size)
            self._add("relative_error", squares, float((reference**2).sum()))

    def _against_numbers(self, pairs: Sequence[tuple[Array, Array]]) -> None:
        same = [(output == r).reshape(-1) for output, r in pairs]
        self._add("agreement", sum(equal.sum() for equal in same), sum(equal.size for equal in same))
        self._hits["agreement"].append(same[0])

    def _against_classes(self, outputs: Array, wanted: Array) -> None:
        same = outputs.argmax(-1) == wanted.argmax(-1)
        logs, target = log_probabilities(outputs), log_probabilities(wanted)
        self._add("agreement", same.sum(), same.size)
        self._hits["agreement"].append(same.reshape(-1))
        self._add("kl", (np.exp(target) * (target - logs)).sum(), same.size)

    def _add(self, name: str, total: float, weight: float) -> None:
        before, count = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (before + float(total), count + weight)


def log_probabilities(outputs: Array) -> Logs:
    """Log-probabilities over the last axis of logits, probabilities or log-probabilities, in float64."""
    values = outputs.astype(np.float64)
    if _is_probability(outputs):
        return np.log(np.maximum(values, np.exp(_LEAST_LOG)))
    # Log-probabilities are their own log-softmax: only probabilities need to be told apart.
    shifted = values - values.max(axis=-1, keepdims=True)
    logs: Logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.maximum(logs, _LEAST_LOG)


def _is_probability(values: Array) -> bool:
    if values.ndim < 2 or values.shape[-1] < 2 or values.min(initial=0) < 0:
        return False
    return bool(np.allclose(values.sum(axis=-1, dtype=np.float64), 1, rtol=0, atol=_SUM_TOLERANCE))


def _is_classes(values: Array) -> bool:
    return values.ndim == 2 and values.shape[1] > 1


def _cosines(outputs: Array, wanted: Array, count: int) -> npt.NDArray[np.float64]:
    """Cosine per sample, or over all where the first axis is not the batch; two zero vectors are equal."""
    rows = count if outputs.shape[:1] == (count,) else 1
    y, r = outputs.reshape(rows, -1), wanted.reshape(rows, -1)
    norms = np.linalg.norm(y, axis=1) * np.linalg.norm(r, axis=1)
    both_zero = ~y.any(axis=1) & ~r.any(axis=1)
    norms = np.where(norms > 0, norms, 1.0)
    cosines: npt.NDArray[np.float64] = np.where(both_zero, 1.0, (y * r).sum(1) / norms)
    return cosines


def _label_problem(data: Data, outputs: Mapping[str, Array]) -> str | None:
    """Why the labels cannot be used; None if they can."""
    labels = [part.labels for part in data.parts if part.labels is not None]
    if not data.labelled:
        return "it has no labels"
    odd = next((array for array in labels if array.dtype.kind not in "biu" or array.size != len(array)), None)
    if odd is not None:
        return f"its labels are {odd.dtype} {list(odd.shape)}, not one class number a sample"
    if not any(_is_classes(y) for y in outputs.values() if y.dtype.kind == "f"):
        found = ", ".join(f"'{name}' {list(y.shape)}" for name, y in outputs.items())
        return f"class labels need an output [batch, classes], the model has {found}"
    return None


def _class_doubts(data: Data, outputs: Mapping[str, Array]) -> tuple[str, ...]:
    """That names were numbered, but not as many as the model has classes."""
    classes = next(y for y in _floats(outputs).values() if _is_classes(y)).shape[1]
    if data.classes is None or data.classes == classes:
        return ()
    return (
        f"{data.description}: the labels are names of {data.classes:,} classes, the model has {classes:,}; "
        "where one is missing, all after it have the wrong number: give the numbers in a labels.csv",
    )


def _outputs(session: Session, batch: Batch) -> dict[str, Array]:
    """The outputs for one batch."""
    outputs = session.run(batch.feeds)
    broken = next((name for name, y in _floats(outputs).items() if not np.isfinite(y).all()), None)
    if broken is not None:
        raise ModelError(f"the model gives NaN or Inf in its output '{broken}'; it cannot be measured")
    return outputs


def _floats(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: y for name, y in outputs.items() if y.dtype.kind == "f"}


def _session(model: ir.Model | Path | str, provider: Provider) -> Session:
    return Session(model if isinstance(model, ir.Model) else Path(model), provider)
