"""Preparation: who learns and who teaches, and whether all is as it should be, tried on the first batch."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxprune.data import Data
from onnxprune.data.inputs import fixed_batch
from onnxprune.data.parting import parted
from onnxprune.errors import ModelError, TrainingError, UsageError
from onnxprune.finetune.augmentation import require_images
from onnxprune.finetune.batches import as_tensor
from onnxprune.finetune.distributed import Processes
from onnxprune.finetune.module import to_module
from onnxprune.finetune.networks import Networks
from onnxprune.finetune.objective import check_labels, objective_of
from onnxprune.finetune.ops.random import RANDOM
from onnxprune.model import Model
from onnxprune.options import Training
from onnxprune.session import Session

_AGREEMENT = 1e-2  # of an output's magnitude: far above rounding, far below any op that means something else
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def hold_back(data: Data, options: Training) -> tuple[Data, Data | None]:
    """What to train on and what to choose the best epoch by; of too few samples none is held back."""
    trained_on, held = parted(data, options.holdout, options.seed, "trained on")
    return (data, None) if trained_on is None or held is None else (trained_on, held)


def require_divisible(data: Data, here: Processes) -> None:
    """Refuse several processes where a batch cannot be shared.

    Raises:
        TrainingError: the model takes batches of one size only.
    """
    fixed = fixed_batch(data.inputs)
    if here.count > 1 and (fixed is not None or any(want.batch_axis is None for want in data.inputs)):
        raise TrainingError(
            "the model takes batches of one size only, which processes cannot share; train it in one process"
        )


def make_networks(
    model: Model, teacher: Model | None, data: Data, options: Training, here: Processes
) -> Networks:
    """The student and, where it is learned from, the teacher.

    Raises:
        ModelError: ops without a function in torch, or a teacher of another form.
        TrainingError: there are no weights.
        UsageError: an objective that cannot be had.
    """
    graph = teacher.graph if teacher is not None else None
    objective = objective_of(model.graph, graph, data, options)
    student = _placed(to_module(model, masks=options.masks, outputs=objective.student), here.device)
    if next(student.parameters(), None) is None:
        raise TrainingError("the model has no weights that could be trained")
    tutor = None
    if teacher is not None and objective.teacher:
        wants, has = ([value.name for value in one.graph.inputs] for one in (model, teacher))
        if wants != has:
            raise ModelError(
                f"the teacher has the inputs {has}, the model {wants}; give the one it was made from"
            )
        tutor = _placed(to_module(teacher, masks="none", outputs=objective.teacher), here.device)
        tutor.requires_grad_(False)
    return Networks(student, tutor, objective, _PRECISIONS[options.precision])


def _placed(module: nn.Module, device: torch.device) -> nn.Module:
    """On the device; in float32 where the file is in half precision: steps below its digits would be lost.

    On a CPU in torch's `channels_last`: kernels of that layout are up to 2.7 times as fast, and the weights'
    layout decides that of the images. Shapes and names stay.
    """
    halves = (torch.float16, torch.bfloat16)
    if any(weight.dtype in halves for weight in module.parameters()):
        module = module.float()
    if device.type == "cpu":
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
    return module.to(device)


def prepare(
    model: Model, networks: Networks, data: Data, options: Training, here: Processes
) -> list[tuple[str, str]]:
    """Check on the first batch that all is as it should be; the weights that are not trained, and why.

    Raises:
        ModelError: torch and onnxruntime do not agree on the model.
        TrainingError: no weight is left to train.
        UsageError: a pattern to freeze that no weight is named like, or images to move where there are none.
        DataError: labels that do not fit.
    """
    objective = networks.objective
    require_images(data, options, objective.labels > 0)
    batch = next(data.batches())
    inputs = [as_tensor(array, here.device) for array in batch.feeds.values()]
    with torch.random.fork_rng():
        with torch.no_grad():
            _require_agreement(model, objective.student, batch.feeds, networks.exact(inputs))
        outputs = networks.outputs(inputs)
        if objective.labels:
            (index,) = (n for n, head in enumerate(objective.heads) if head.family == "categorical")
            check_labels(data, outputs[index].shape[objective.heads[index].axis])
        targets = networks.targets(inputs)
        objective.calibrate(targets)
        frozen = _freeze(networks.student, options.freeze)
        labels = None
        if batch.labels is not None and batch.labels.dtype.kind in "biu":
            labels = as_tensor(batch.labels.astype(np.int64), here.device)
        unreached = _unreached(networks.student, objective(outputs, targets, labels))
    for name, parameter in networks.student.named_parameters():
        if name in unreached:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in networks.student.parameters()):
        raise TrainingError("no weight is left to train: all are frozen, or no gradient reaches them")
    return [(n, "frozen") for n in frozen] + [(n, "no gradient reaches it") for n in unreached]


def _require_agreement(
    model: Model, names: Sequence[str], feeds: dict[str, Any], found: Sequence[Tensor]
) -> None:
    """A module that computes something else would be trained for nothing: better said now."""
    if any(node.op_type in RANDOM for node in model.graph):
        return
    reader = model.ir.clone()
    made = (value for node in reader.graph for value in node.outputs)
    values = {value.name: value for value in (*reader.graph.inputs, *made)}
    reader.graph.outputs[:] = [values[name] for name in names]
    wanted = Session(reader, "cpu", optimise=False).run(feeds)
    for (name, right), result in zip(wanted.items(), found, strict=True):
        got = result.detach().to("cpu", torch.float64).numpy()
        scale = max(1.0, float(np.abs(right).max(initial=0)))
        allowed = _AGREEMENT if right.dtype != np.float16 else 10 * _AGREEMENT
        if got.shape != right.shape or not np.abs(got - right).max(initial=0) <= allowed * scale:
            raise ModelError(
                f"torch computes the value '{name}' otherwise than onnxruntime; train with "
                "onnxprune.finetune.to_module in a loop of your own, and please report it"
            )


def _freeze(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Stop training the parameters named like a pattern; their names."""
    named = dict(module.named_parameters())
    found = []
    for pattern in patterns:
        matching = [name for name in named if fnmatchcase(name, pattern)]
        if not matching:
            raise UsageError(
                f"--freeze {pattern!r}: no weight is named like that; there are {', '.join(list(named)[:5])}…"
            )
        found += matching
    for name in found:
        named[name].requires_grad_(False)
    return list(dict.fromkeys(found))


def _unreached(module: nn.Module, loss: Tensor) -> list[str]:
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not named or not loss.requires_grad:
        return list(named)
    grads: Sequence[Tensor | None] = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return [name for name, grad in zip(named, grads, strict=True) if grad is None]
