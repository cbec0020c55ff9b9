"""Batches for training: all samples in a new order every epoch, a share of each batch for every process.

The order is drawn from the seed and the epoch alone, so that a run that was killed goes on with the batches
it would have had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnxprune.data import Batch, Data
from onnxprune.data.inputs import Array

_SHUFFLE = 0x5EED  # keeps these draws apart from others made with the same seed


@dataclass(frozen=True)
class Share:
    """What one process gets of a batch: `weight` is its part of the batch's mean, times the processes.

    `targets` is what the teacher says, empty if it is still to be asked.
    """

    inputs: list[Tensor]
    labels: Tensor | None
    weight: float
    targets: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Chunk:
    """Which samples a batch has: the part of the data, and places [count] among the part's rows."""

    part: int
    places: npt.NDArray[np.int64]

    def shared(self, rank: int, processes: int) -> Chunk:
        """What one process gets of it, see `share_of`."""
        return Chunk(self.part, self.places[_rows(rank, processes, len(self.places))])


def epoch_batches(data: Data, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Chunk, Batch]]:
    """The batches of one epoch from number `start` on; samples of different shapes are never in one batch."""
    chunks = _chunks(data, np.random.default_rng([_SHUFFLE, seed, epoch]))[start:]
    parts = (data.parts[chunk.part] for chunk in chunks)
    chosen = tuple(part.only(part.rows[chunk.places]) for part, chunk in zip(parts, chunks, strict=True))
    yield from zip(chunks, replace(data, parts=chosen).batches(), strict=True)


def count_batches(data: Data) -> int:
    """Batches in an epoch."""
    return sum(-(-len(part.rows) // data.batch_size) for part in data.parts)


def _chunks(data: Data, rng: np.random.Generator) -> list[Chunk]:
    chunks = []
    for number, part in enumerate(data.parts):
        places = rng.permutation(len(part.rows))
        starts = range(0, len(places), data.batch_size)
        chunks += [Chunk(number, places[n : n + data.batch_size]) for n in starts]
    return [chunks[n] for n in rng.permutation(len(chunks))]


def share_of(batch: Batch, data: Data, rank: int, processes: int, device: torch.device) -> Share:
    """The rows `rank`, `rank` + `processes`, … of `batch`; where there are none, one that counts nothing."""
    weight = len(range(rank, batch.count, processes)) * processes / batch.count
    rows = _rows(rank, processes, batch.count)
    arrays = list(batch.feeds.values())
    if processes > 1:
        arrays = [want.take(batch.feeds[want.name], rows) for want in data.inputs]
    labels = None
    if batch.labels is not None and batch.labels.dtype.kind in "biu":
        labels = as_tensor(batch.labels[rows].astype(np.int64), device)
    return Share([as_tensor(array, device) for array in arrays], labels, weight)


def _rows(rank: int, processes: int, count: int) -> npt.NDArray[np.int64]:
    return np.arange(rank if rank < count else 0, count if rank < count else 1, processes)


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
