"""Parting: data as a part to work on, and one held back, which that work never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxprune.data.batches import Data, Part
from onnxprune.data.inputs import fixed_batch
from onnxprune.errors import DataError

Rows = npt.NDArray[np.int64]


def halves(data: Data, seed: int) -> tuple[Data, Data]:
    """Two halves drawn by `seed`, with class labels as many of each class in both, to one sample.

    Raises:
        DataError: there are too few samples.
    """
    first, second = parted(data, 0.5, seed, "searched on")
    if first is None or second is None:
        raise DataError(f"{data.description}: too few to hold half of them back; give more evaluation data")
    return first, second


def parted(data: Data, share: float, seed: int, use: str) -> tuple[Data | None, Data | None]:
    """All but `share` of the samples, which are for `use`, and the share, which is held back.

    Both are drawn by `seed`, with class labels the same share of every class; None where no sample, or no
    whole batch of a model that takes batches of one size, is left.
    """
    order = np.random.default_rng(seed).permutation(data.count)
    classes = _classes(data)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    steps = np.floor(np.arange(data.count + 1) * share + 1e-9)  # 1e-9: ten tenths are one
    held = np.zeros(data.count, bool)
    held[order[np.diff(steps) > 0]] = True
    ends = np.cumsum([len(part.rows) for part in data.parts])[:-1]
    return _chosen(data, np.split(~held, ends), use), _chosen(data, np.split(held, ends), "held back")


def _classes(data: Data) -> Rows | None:
    """The class of every sample, in the order of the parts."""
    labels = [part.labels[part.rows] for part in data.parts if part.labels is not None]
    usable = all(array.dtype.kind in "biu" and array.size == len(array) for array in labels)
    if not data.labelled or not usable:
        return None
    return np.concatenate([array.reshape(-1).astype(np.int64) for array in labels])


def _chosen(data: Data, masks: Sequence[npt.NDArray[np.bool_]], use: str) -> Data | None:
    size = fixed_batch(data.inputs) or 1
    parts: list[Part] = []
    for part, mask in zip(data.parts, masks, strict=True):
        rows = part.rows[mask]
        rows = rows[: len(rows) // size * size]
        if len(rows):
            parts.append(part.only(rows))
    count = sum(len(part.rows) for part in parts)
    if not count:
        return None
    return replace(data, parts=tuple(parts), description=f"{count:,} of {data.description}, {use}")
