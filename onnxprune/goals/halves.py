"""Halves: evaluation data as a part to search on, and one that the search never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxprune.data import Data
from onnxprune.data.batches import Part
from onnxprune.data.inputs import fixed_batch
from onnxprune.errors import DataError

Rows = npt.NDArray[np.int64]


def halves(data: Data, seed: int) -> tuple[Data, Data]:
    """Two halves drawn by `seed`, with class labels as many of each class in both, to one sample.

    Raises:
        DataError: there are too few samples.
    """
    order = np.random.default_rng(seed).permutation(data.count)
    classes = _classes(data)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    ends = np.cumsum([len(part.rows) for part in data.parts])[:-1]
    first, second = (
        _chosen(data, np.split(np.isin(np.arange(data.count), order[start::2]), ends), use)
        for start, use in ((0, "searched on"), (1, "held back"))
    )
    return first, second


def _classes(data: Data) -> Rows | None:
    """The class of every sample, in the order of the parts."""
    labels = [part.labels[part.rows] for part in data.parts if part.labels is not None]
    usable = all(array.dtype.kind in "biu" and array.size == len(array) for array in labels)
    if not data.labelled or not usable:
        return None
    return np.concatenate([array.reshape(-1).astype(np.int64) for array in labels])


def _chosen(data: Data, masks: Sequence[npt.NDArray[np.bool_]], use: str) -> Data:
    size = fixed_batch(data.inputs) or 1
    parts: list[Part] = []
    for part, mask in zip(data.parts, masks, strict=True):
        rows = part.rows[mask]
        rows = rows[: len(rows) // size * size]
        if len(rows):
            parts.append(part.only(rows))
    count = sum(len(part.rows) for part in parts)
    if not count:
        raise DataError(f"{data.description}: too few to hold half of them back; give more evaluation data")
    return replace(data, parts=tuple(parts), description=f"{count:,} of {data.description}, {use}")
