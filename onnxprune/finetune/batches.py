"""Batches for training: all samples in a new order every epoch, a share of each batch for every process.

The order is drawn from the seed and the epoch alone, so that a run that was killed goes on with the batches
it would have had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxprune.data import Batch, Data
from onnxprune.data.batches import Part
from onnxprune.data.inputs import Array

_SHUFFLE = 0x5EED  # keeps these draws apart from others made with the same seed


@dataclass(frozen=True)
class Share:
    """What one process gets of a batch: `weight` is its part of the batch's mean, times the processes."""

    inputs: list[Tensor]
    labels: Tensor | None
    weight: float


def epoch_batches(data: Data, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
    """The batches of one epoch from number `start` on; samples of different shapes are never in one batch."""
    chunks = _chunks(data, np.random.default_rng([_SHUFFLE, seed, epoch]))
    yield from replace(data, parts=tuple(chunks[start:])).batches()


def count_batches(data: Data) -> int:
    """Batches in an epoch."""
    return sum(-(-len(part.rows) // data.batch_size) for part in data.parts)


def _chunks(data: Data, rng: np.random.Generator) -> list[Part]:
    chunks = []
    for part in data.parts:
        rows = rng.permutation(part.rows)
        chunks += [part.only(rows[n : n + data.batch_size]) for n in range(0, len(rows), data.batch_size)]
    return [chunks[n] for n in rng.permutation(len(chunks))]


def share_of(batch: Batch, data: Data, rank: int, processes: int, device: torch.device) -> Share:
    """The rows `rank`, `rank` + `processes`, … of `batch`; where there are none, one that counts nothing."""
    rows = np.arange(rank, batch.count, processes)
    weight = len(rows) * processes / batch.count
    if len(rows) == 0:
        rows = np.arange(1)
    arrays = list(batch.feeds.values())
    if processes > 1:
        arrays = [want.take(batch.feeds[want.name], rows) for want in data.inputs]
    labels = None
    if batch.labels is not None and batch.labels.dtype.kind in "biu":
        labels = as_tensor(batch.labels[rows].astype(np.int64), device)
    return Share([as_tensor(array, device) for array in arrays], labels, weight)


def as_tensor(array: Array, device: torch.device) -> Tensor:
    """A copy: an array may be a map of a file that must not be written."""
    return torch.tensor(array, device=device)


def digest(data: Data) -> str:
    """A hash of what is trained on: the first batch, and the number of samples."""
    found = hashlib.sha256(f"{data.count} {data.batch_size}".encode())
    first = next(data.batches())
    for array in (*first.feeds.values(), *([first.labels] if first.labels is not None else [])):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
