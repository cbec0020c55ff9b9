"""Training: the loop. What is learned is `objective`'s, what is saved `checkpoint`'s, the rest is here.

The learning rate is a function of the step alone, the order of the samples one of the seed and the epoch, and
torch's generator is seeded at every step: nothing but weights, optimizer and place have to be saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onnxprune.data import Batch, Data
from onnxprune.errors import TrainingError
from onnxprune.evaluate import Metrics
from onnxprune.finetune.answers import Answers, ask
from onnxprune.finetune.augmentation import augmented
from onnxprune.finetune.batches import Chunk, Share, count_batches, epoch_batches, share_of
from onnxprune.finetune.checkpoint import Run, restore, save
from onnxprune.finetune.distributed import Processes
from onnxprune.finetune.networks import Networks
from onnxprune.finetune.stepping import Steps
from onnxprune.options import Training
from onnxprune.progress import Advance, Progress

HELD_BACK = "loss held back"
_SLOWER = 3.0  # the learning rate is divided by, each time that it did harm
_SHOWN = 10  # steps between two looks at the loss, each of which waits for the device
_SAVED = 300.0  # seconds between two checkpoints within an epoch


@dataclass(frozen=True)
class Figure:
    """How good the student is: a `value` for people, and a `score` that is better when larger."""

    name: str
    value: float
    score: list[float]


@dataclass
class Trainer:
    """One run. `measure` says how good the student's weights are, None where nothing tells."""

    networks: Networks
    data: Data
    options: Training
    processes: Processes
    measure: Callable[[], Figure] | None
    identity: dict[str, Any]
    checkpoint: Path | None
    run: Run = field(init=False)
    take_step: Steps = field(init=False)
    _answers: Answers | None = field(init=False, default=None)
    _saved: float = field(init=False)

    def __post_init__(self) -> None:
        parameters = {n: p for n, p in self.networks.student.named_parameters() if p.requires_grad}
        self.run = Run(parameters, make_optimizer(parameters, self.options))
        if self.checkpoint is not None and self.checkpoint.exists():
            restore(self.checkpoint, self.run, self.identity)
        here, module = self.processes, self.processes.wrap(self.networks.student)
        alone_on_gpu = here.device.type == "cuda" and here.count == 1
        loss = partial(self._loss, module)
        self.take_step = Steps(self.run, loss, self.options.clip, here.device, record=alone_on_gpu)
        self._saved = time.monotonic()

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return count_batches(self.data)

    def train(self, progress: Progress) -> None:
        """All epochs that are left; the student then has the best weights, or the last ones.

        Raises:
            TrainingError: the loss became NaN or infinite.
        """
        position = self.run.position
        done = position.epoch * self.data.count + position.samples
        with _settings():
            self._answers = ask(self.networks, self.data, self.options, self.processes, progress)
            with progress.stage("fine-tuning", self.options.epochs * self.data.count) as advance:
                advance(done)
                if not position.epochs:
                    self._finish_epoch(None)
                while position.epoch < self.options.epochs:
                    self._epoch(advance)
        for name, weight in self.run.best.items():
            self.run.parameters[name].data.copy_(weight)

    def _epoch(self, advance: Advance) -> None:
        position, device = self.run.position, self.processes.device
        total = torch.tensor(position.loss, dtype=torch.float64, device=device)
        for chunk, batch in epoch_batches(self.data, self.options.seed, position.epoch, position.step):
            total += self._step(chunk, batch) * batch.count
            position.step += 1
            position.samples += batch.count
            note = ""
            if position.step % _SHOWN == 0 or position.step == self.steps:
                position.loss = self._checked(total)
                mean = position.loss / position.samples
                note = f"epoch {position.epoch + 1}/{self.options.epochs}, loss {mean:.4g}"
                if time.monotonic() - self._saved > _SAVED and position.step < self.steps:
                    self._save()
            advance(batch.count, note)
        self._finish_epoch(position.loss / position.samples)

    def _step(self, chunk: Chunk, batch: Batch) -> Tensor:
        """Train on one batch; its loss, this process's part of it."""
        position, options, here = self.run.position, self.options, self.processes
        step = position.epoch * self.steps + position.step
        self._seed(options.seed + step)
        batch = augmented(batch, self.data, options, step)
        share = share_of(batch, self.data, here.rank, here.count, here.device)
        if self._answers is not None:
            share = replace(share, targets=self._answers.of(chunk.shared(here.rank, here.count)))
        whole = options.learning_rate / _SLOWER**position.returns
        return self.take_step(share, whole * rate(step / (options.epochs * self.steps), options))

    def _seed(self, seed: int) -> None:
        """For networks that draw. Without CUDA `torch.manual_seed` queues a call and its stack, for ever."""
        torch.default_generator.manual_seed(seed)
        if self.processes.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _loss(self, module: nn.Module, share: Share) -> Tensor:
        targets = share.targets or self.networks.targets(share.inputs)
        return (
            self.networks.objective(self.networks.outputs(share.inputs, module), targets, share.labels)
            * share.weight
        )

    def _checked(self, total: Tensor) -> float:
        loss = self.processes.mean(total)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {self.run.position.epoch + 1}; train with a smaller "
                "--learning-rate, or with --clip 1"
            )
        return loss

    def _finish_epoch(self, loss: float | None) -> None:
        """Measure, remember the best, save. `loss` is None before the first epoch."""
        position = self.run.position
        if loss is not None:
            position.epoch, position.step, position.loss, position.samples = position.epoch + 1, 0, 0.0, 0
        if self.processes.first:
            found = self.measure() if self.measure is not None else None
            entry: dict[str, Any] = {"epoch": position.epoch, "loss": loss}
            if found is not None:
                entry |= {"name": found.name, "metric": found.value, "score": found.score}
            position.epochs.append(entry)
            if found is not None and all(found.score > other["score"] for other in position.epochs[:-1]):
                position.best = position.epoch
                self.run.best = self._weights()
        if not self.run.best and self.measure is not None:
            self.run.best = self._weights()  # the start, which all processes may have to go back to
        if self.processes.told(self._worse_than_start()):
            self._return()
        if self.processes.first:
            self._save()
        self.processes.wait()

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu().clone() for name, weight in self.run.parameters.items()}

    def _worse_than_start(self) -> bool:
        """Whether no epoch was better than the start, and the last one was worse."""
        start, *others = self.run.position.epochs or [{}]
        return self.run.position.best == 0 and bool(others) and others[-1]["score"] < start["score"]

    def _return(self) -> None:
        """To the weights of the start, with a third of the learning rate: the rate was what did harm."""
        for name, weight in self.run.best.items():
            self.run.parameters[name].data.copy_(weight)
        self.run.optimizer.state.clear()
        self.take_step.forget()
        self.run.position.returns += 1
        if self.processes.first:
            self.run.position.epochs[-1]["returned"] = True

    def _save(self) -> None:
        if self.checkpoint is not None and self.processes.first:
            save(self.checkpoint, self.run, self.identity)
            self._saved = time.monotonic()


def make_optimizer(parameters: dict[str, nn.Parameter], options: Training) -> torch.optim.Optimizer:
    """The optimizer; weight decay is for matrices and kernels, not for biases and scales."""
    groups = [
        {"params": [p for p in parameters.values() if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters.values() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    cuda = all(parameter.is_cuda for parameter in parameters.values())
    start, momentum = options.learning_rate, options.momentum
    # fused: one kernel a step instead of dozens; capturable: one that can be recorded
    if options.optimizer == "sgd":
        return torch.optim.SGD(filled, start, momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(filled, start, (momentum, 0.999), fused=True, capturable=cuda)


def rate(done: float, options: Training) -> float:
    """The share of the learning rate at a place in the run, 0 ≤ `done` < 1."""
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if options.schedule == "step":
        return float(options.gamma ** sum(done >= milestone for milestone in options.milestones))
    return 1.0


def figure_of(metrics: Metrics) -> Figure:
    """The figure a report shows; among equals in it another one tells."""
    finer = {"top1": "loss", "agreement": "kl", "cosine": "relative_error"}[metrics.primary]
    return Figure(metrics.primary, metrics.value, [metrics.value, -metrics.values[finer]])


@contextmanager
def _settings() -> Iterator[None]:
    """The caller's generators and settings stay as they are; cuDNN takes algorithms that repeat."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.random.fork_rng():
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
