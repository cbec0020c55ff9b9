"""Objective: what training minimises, from the values in front of the outputs.

    labels         cross-entropy of the classifier's logits with true labels
    distillation   per head, with T the temperature: T²·KL(softmax(t/T) ‖ softmax(s/T)) for a classifier, the
                   same of Bernoulli variables for a Sigmoid, ½‖s − t‖² in units of the teacher's mean square
                   for any other output (Hinton, Vinyals & Dean 2015, §2)
    both           (1 − balance)·labels + balance·distillation

What is a classifier the gradient's `heads_of` knows: Softmax and Sigmoid at the end are undone, so that
logits are compared. All losses are means over samples and positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.data import Data
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.gradient import Head, heads_of
from onnxprune.options import Training

_LEAST = 1e-12  # a teacher that says zero everywhere still has a unit


@dataclass
class Objective:
    """The loss of one run. `student` and `teacher` name the values it wants, in its order."""

    heads: list[Head]
    student: list[str]
    teacher: list[str]
    labels: float  # weight of the cross-entropy
    distillation: float
    temperature: float
    units: list[float] = field(default_factory=list)

    def calibrate(self, teacher: Sequence[Tensor]) -> None:
        """Fix the unit of every other output than a classifier's from what the teacher says to one batch."""
        self.units = [max(float(t.double().square().mean()), _LEAST) for t in teacher]

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The loss, a scalar of float32 or better.

        Args:
            student: values named by `student`, of a batch.
            teacher: those named by `teacher`; empty without one.
            labels: int64, one an observation; None without them.

        Raises:
            DataError: labels of another number than observations, or outside the classes.
        """
        parts = []
        if labels is not None and self.labels:
            (index,) = (n for n, head in enumerate(self.heads) if head.family == "categorical")
            parts.append(self.labels * _cross_entropy(student[index], self.heads[index].axis, labels))
        for index, (s, t) in enumerate(zip(student, teacher, strict=False)):
            parts.append(self.distillation * self._distance(index, _wide(s), _wide(t)))
        return torch.stack(parts).sum()

    def _distance(self, index: int, s: Tensor, t: Tensor) -> Tensor:
        head, heat = self.heads[index], self.temperature
        if head.family == "gaussian":
            return 0.5 * F.mse_loss(s, t) / self.units[index]
        s, t = s / heat, t / heat
        if head.family == "categorical":
            logs, target = F.log_softmax(s, head.axis), F.log_softmax(t, head.axis)
            return heat**2 * (target.exp() * (target - logs)).sum(head.axis).mean()
        wrong = F.binary_cross_entropy_with_logits(s, torch.sigmoid(t))
        return heat**2 * (wrong - F.binary_cross_entropy_with_logits(t, torch.sigmoid(t)))


def objective_of(graph: ir.Graph, teacher: ir.Graph | None, data: Data, options: Training) -> Objective:
    """The objective that `options` ask for.

    Raises:
        UsageError: an objective without what it needs: labels, a teacher, an output that classifies.
        ModelError: a teacher whose outputs are not the model's.
    """
    wanted = options.objective
    if wanted == "auto":
        wanted = "labels" if teacher is None else "distillation"
    if wanted != "labels" and teacher is None:
        raise UsageError(f"--objective {wanted}: there is nobody to learn from; name one with --teacher FILE")
    heads = heads_of(graph, options.loss)
    if wanted != "distillation":
        _require_labels(heads, data)
    partners = _partners(heads, heads_of(teacher, options.loss)) if teacher is not None else []
    learns = wanted != "labels"
    return Objective(
        heads=heads,
        student=[_name(head) for head in heads],
        teacher=[_name(head) for head in partners] if learns else [],
        labels={"labels": 1.0, "distillation": 0.0, "both": 1 - options.balance}[wanted],
        distillation={"labels": 0.0, "distillation": 1.0, "both": options.balance}[wanted],
        temperature=options.temperature,
    )


def _require_labels(heads: Sequence[Head], data: Data) -> None:
    found = [head for head in heads if head.family == "categorical"]
    if not data.labelled:
        raise UsageError(
            f"{data.description}: no labels to learn from; add them, or learn from the dense model "
            "with --teacher FILE"
        )
    if len(found) != 1:
        raise UsageError(
            f"--objective labels: the model has {len(found)} outputs that classify, one is needed; "
            "learn from the dense model with --teacher FILE"
        )


def _partners(heads: Sequence[Head], others: Sequence[Head]) -> list[Head]:
    """For every head the teacher's head of the same output."""
    known = {head.output.name: head for head in others}
    for head in heads:
        other = known.get(head.output.name)
        if other is None or (other.family, other.axis) != (head.family, head.axis):
            has = "has no such output" if other is None else "ends in another way there"
            raise ModelError(
                f"output '{head.output.name}': the teacher {has}; give the model this one was made from"
            )
    return [known[head.output.name] for head in heads]


def _name(head: Head) -> str:
    return head.value.name or ""


def _wide(value: Tensor) -> Tensor:
    """In float32, if autocast made it less."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _cross_entropy(logits: Tensor, axis: int, labels: Tensor) -> Tensor:
    rows = _wide(logits).movedim(axis, -1)
    rows = rows.reshape(-1, rows.shape[-1])
    if labels.numel() != len(rows):
        raise DataError(
            f"{labels.numel()} labels for {len(rows)} observations of the output {list(logits.shape)}; "
            "give one an observation"
        )
    return F.cross_entropy(rows, labels.reshape(-1))


def check_labels(data: Data, classes: int) -> None:
    """Refuse labels that are no class numbers, before any work.

    Raises:
        DataError: names the first one outside.
    """
    for part in data.parts:
        labels = np.asarray(part.labels)[part.rows]
        if labels.dtype.kind not in "biu":
            raise DataError(f"{data.description}: labels are {labels.dtype}; give class numbers")
        outside = (labels < 0) | (labels >= classes)
        if outside.any():
            known = f"the model's classes 0..{classes - 1}"
            first = labels[outside].ravel()[0]
            raise DataError(f"{data.description}: label {first} is not among {known}; renumber the labels")
