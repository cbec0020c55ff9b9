"""Millions of weights as a few counts, for pictures: histograms, and importance against magnitude."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.report.schema import Histogram, SaliencyMap

Array = npt.NDArray[Any]

VALUES = 41  # bins of a histogram; odd, so that zero is in the middle of one
SIDE = 40  # bins of a map, either way
_SAMPLE = 1_000_000  # weights that decide where the bins are
_OUTSIDE = 1e-3  # share of these that may lie beyond the bins
_AT_ONCE = 1 << 20


def histogram(before: Array, after: Array) -> Histogram | None:
    """The weights of one layer before and after, by value; None where there is nothing but zeros."""
    before, after = _real(before), _real(after)
    sizes = [np.abs(weights) for weights in (before, after) if weights.size]
    limit = max((_quantile(size, 1 - _OUTSIDE) for size in sizes), default=0.0)
    if limit == 0:
        return None
    return Histogram(limit=limit, before=_counts(before, limit), after=_counts(after, limit))


def _real(weights: Array) -> Array:
    real: Array = weights[(weights != 0) & np.isfinite(weights)]
    return real


def _quantile(values: Array, share: float) -> float:
    return float(np.quantile(values[:: -(-values.size // _SAMPLE)], share))


def _counts(weights: Array, limit: float) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(weights, -limit, limit), VALUES, (-limit, limit))
    return tuple(counts.tolist())


def saliency_map(layers: Sequence[tuple[Array, Array, Array]]) -> SaliencyMap | None:
    """All layers together, by magnitude and importance; None where no weight is worth anything.

    Args:
        layers: of each the dense weights, their scores, and whether they were kept, of one shape.
    """
    sample = [(np.abs(weights), scores) for weights, scores, _ in _thinned(layers)]
    logs = _logs(*(np.concatenate(parts) for parts in zip(*sample, strict=True))) if sample else None
    if logs is None or not logs[0].size:
        return None
    ranges = [_range(values) for values in logs]
    counts = np.zeros((2, SIDE * SIDE), dtype=np.int64)
    for weights, scores, kept in _pieces(layers):
        for place, mask in enumerate((kept, ~kept)):
            places = [
                np.clip((SIDE * (values - low) / (high - low)).astype(np.int64), 0, SIDE - 1)
                for values, (low, high) in zip(_logs(weights[mask], scores[mask]), ranges, strict=True)
            ]
            counts[place] += np.bincount(SIDE * places[1] + places[0], minlength=SIDE * SIDE)
    kept_counts, pruned_counts = (tuple(row) for row in counts.tolist())
    return SaliencyMap(magnitude=ranges[0], importance=ranges[1], kept=kept_counts, pruned=pruned_counts)


def _flat(layers: Sequence[tuple[Array, Array, Array]]) -> Iterator[list[Array]]:
    yield from ([array.reshape(-1) for array in arrays] for arrays in layers)


def _thinned(layers: Sequence[tuple[Array, Array, Array]]) -> Iterator[list[Array]]:
    step = max(1, -(-sum(weights.size for weights, _, _ in layers) // _SAMPLE))
    yield from ([array[::step] for array in arrays] for arrays in _flat(layers))


def _pieces(layers: Sequence[tuple[Array, Array, Array]]) -> Iterator[list[Array]]:
    for arrays in _flat(layers):
        for start in range(0, arrays[0].size, _AT_ONCE):
            yield [array[start : start + _AT_ONCE] for array in arrays]


def _logs(weights: Array, scores: Array) -> tuple[Array, Array]:
    weights = np.abs(weights)
    worth = (weights > 0) & (scores > 0) & np.isfinite(weights) & np.isfinite(scores)
    return np.log10(weights[worth]), np.log10(scores[worth])


def _range(logs: Array) -> tuple[float, float]:
    low, high = _quantile(logs, _OUTSIDE), float(logs.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)
