"""Figures of merit as running sums: of outputs against labels, and against those of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnxprune.data import Batch
from onnxprune.errors import DataError, ModelError
from onnxprune.session import Array

_SUM_TOLERANCE = 1e-2  # float16 probabilities of thousands of classes sum to 1 no better than this
_LEAST_LOG = -69.0  # log 1e-30: a probability that underflowed to 0 costs this much, not infinitely much

Logs = npt.NDArray[np.float64]


class Figures:
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
        """Every figure by its name, over all that was added."""
        means = {name: total / weight for name, (total, weight) in self._sums.items() if weight}
        if "relative_error" in means:  # so far of squares
            means["relative_error"] **= 0.5
        return means

    def against_labels(self, outputs: Mapping[str, Array], batch: Batch) -> None:
        """Add loss and accuracy of a batch's classes.

        Raises:
            DataError: a label that is no class.
        """
        assert batch.labels is not None
        logs = log_probabilities(next(y for y in outputs.values() if is_classes(y)))
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
        """Add how far the outputs for `count` samples are from those `wanted`.

        Raises:
            ModelError: one is missing, or of another shape.
        """
        given = floats(wanted)
        shapes = {name: y.shape for name, y in outputs.items()}
        different = [name for name, r in (given or wanted).items() if shapes.get(name) != r.shape]
        if different:
            raise ModelError(
                f"the model cannot be compared with its reference: output '{different[0]}' is missing or of "
                "another shape; is it made from it?"
            )
        if not given:
            self._against_numbers([(outputs[name], r) for name, r in wanted.items()])
            return
        wanted, first = given, next(iter(given))
        if is_classes(wanted[first]) or _is_probability(wanted[first]):
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


def is_classes(values: Array) -> bool:
    """Whether an output is a class's score for every sample, [batch, classes]."""
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


def floats(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Those outputs that are floating-point numbers."""
    return {name: y for name, y in outputs.items() if y.dtype.kind == "f"}
