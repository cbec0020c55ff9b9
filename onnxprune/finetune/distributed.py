"""Processes: one, or as many as torch's launcher started.

`torchrun --nproc-per-node 4 -m onnxprune finetune …` starts the same command four times and numbers the
processes in the environment; each takes its rows of every batch, and gradients are averaged. The first one
alone measures, saves and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from torch import Tensor, distributed, nn

from onnxprune.errors import RuntimeUnavailableError, TrainingError

_PATIENCE = timedelta(hours=6)  # the others wait while the first one measures


@dataclass(frozen=True)
class Processes:
    """This process among all; `device` is where it computes."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that measures, saves and writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` so that its gradients are averaged over all processes."""
        if self.count == 1:
            return module
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)

    def mean(self, value: Tensor) -> float:
        """The mean of a scalar over all processes, the same for all."""
        if self.count == 1:
            return float(value)
        total = value.clone()
        distributed.all_reduce(total)
        return float(total) / self.count

    def told(self, flag: bool) -> bool:
        """The first process's `flag`, for all."""
        if self.count == 1:
            return flag
        value = torch.tensor(float(flag and self.first), device=self.device)
        distributed.all_reduce(value)
        return bool(value)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Processes]:
    """Join the other processes, if the launcher started any.

    Raises:
        RuntimeUnavailableError: CUDA was asked for and is not there.
        TrainingError: the launcher's environment is incomplete.
    """
    count = _number("WORLD_SIZE", 1)
    rank, local = (_number("RANK", 0), _number("LOCAL_RANK", 0)) if count > 1 else (0, 0)
    here = _device(device, local)
    if count == 1:
        yield Processes(0, 1, here)
        return
    try:
        distributed.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"cannot join the other processes: {reason}; start them with torchrun") from error
    try:
        yield Processes(rank, count, here)
    finally:
        distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise TrainingError(f"{name}={text!r} in the environment is no number; start with torchrun")
    return int(text)


def _device(choice: Literal["auto", "cpu", "cuda"], local: int) -> torch.device:
    there = torch.cuda.is_available()
    if choice == "cuda" and not there:
        raise RuntimeUnavailableError("--device cuda: this torch sees no GPU; use --device cpu")
    if choice == "cpu" or not there:
        return torch.device("cpu")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
