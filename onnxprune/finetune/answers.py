"""Answers: what the teacher says to every sample, asked once for all epochs.

A teacher never changes: where no image is moved anew, its answers can be kept, each [samples of a part, …] as
the network gives them, and an epoch costs the student alone. They are asked for in the order of the data, so
that a run that goes on learns from the same ones, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxprune.data import Data
from onnxprune.data.batches import Batch
from onnxprune.finetune.batches import Chunk, as_tensor
from onnxprune.finetune.distributed import Processes
from onnxprune.finetune.networks import Networks
from onnxprune.options import Training
from onnxprune.progress import Progress

_MOST = 2**28  # bytes that are kept
_ALIKE = 1e-4  # of the largest answer: rows of other batches differ by rounding, but not by this


@dataclass(frozen=True)
class Answers:
    """The teacher's outputs for every part of the data, in the order of its rows."""

    parts: list[list[Tensor]]

    def of(self, chunk: Chunk) -> list[Tensor]:
        """Those of the samples of a batch."""
        return [output[torch.from_numpy(chunk.places)] for output in self.parts[chunk.part]]


def ask(
    networks: Networks, data: Data, options: Training, here: Processes, progress: Progress
) -> Answers | None:
    """All answers, or None where they are not worth keeping or cannot be kept.

    Not worth it are fewer epochs than processes, each of which asks for all. They cannot be kept of images
    that move, nor where the answer to a sample is not the same in any batch, or is no row of an output.
    """
    if networks.teacher is None or options.moves or options.epochs <= here.count:
        return None
    if not _row_by_row(networks, data, here.device):
        return None
    batches: list[list[list[Tensor]]] = [[] for _ in data.parts]
    numbers = (n for n, part in enumerate(data.parts) for _ in range(0, len(part.rows), data.batch_size))
    taken = samples = 0
    with progress.stage("asking the teacher", data.count) as advance:
        for number, batch in zip(numbers, data.batches(), strict=True):
            found = list(_answers(networks, batch, here.device))
            batches[number].append(found)
            taken, samples = taken + sum(one.nbytes for one in found), samples + batch.count
            if taken / samples * data.count > _MOST:
                return None
            advance(batch.count)
    return Answers([[torch.cat(output) for output in zip(*part, strict=True)] for part in batches])


def _answers(networks: Networks, batch: Batch, device: torch.device) -> tuple[Tensor, ...]:
    return networks.targets([as_tensor(array, device) for array in batch.feeds.values()])


def _row_by_row(networks: Networks, data: Data, device: torch.device) -> bool:
    """Whether a sample has the same answer, in a row of its own, when the rest of its batch is another."""
    batch = next(data.batches())
    repeated = data.only(batch, np.full(batch.count, batch.count - 1))
    for mixed, alike in zip(*(_answers(networks, one, device) for one in (batch, repeated)), strict=True):
        if not mixed.numel() or mixed.dim() == 0 or len(mixed) != batch.count:
            return False
        wrong = (alike - mixed[-1:]).abs().max()
        if not wrong <= _ALIKE * mixed.abs().max():
            return False
    return True
