"""Checkpoints: everything a run needs to go on where it was, in a safetensors file; nothing is pickled.

Tensors are `weight/<name>`, `best/<name>` and `optimizer/<key>/<name>`; the header says which run it is
(hashes of models and data, options) and how far it came. A run that goes on does bit by bit what it would
have done.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from onnxprune.errors import TrainingError
from onnxprune.files import replacing

FORMAT = "onnxprune-training-1"


@dataclass
class Position:
    """How far a run came.

    Attributes:
        epoch: epochs finished.
        step: batches of the next one done.
        loss: sum of the losses of those batches, each times its samples.
        samples: how many samples these were.
        epochs: a record of every epoch finished, and of the start.
        best: the epoch whose weights are the best, by evaluation; None without one.
        returns: how often it went back to the start, each time with a third of the learning rate.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    samples: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None
    returns: int = 0


@dataclass
class Run:
    """What changes during a run. `parameters` are those that are trained, by name."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    position: Position = field(default_factory=Position)
    best: dict[str, Tensor] = field(default_factory=dict)


def save(path: Path, run: Run, identity: dict[str, Any]) -> None:
    """Write it, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in run.parameters.items()}
    tensors |= {f"best/{name}": weight for name, weight in run.best.items()}
    for name, parameter in run.parameters.items():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{key}/{name}"] = value
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "run": json.dumps(identity), "position": json.dumps(asdict(run.position))}
    with replacing(path, "the checkpoint") as partial:
        safetensors.torch.save_file(tensors, partial, metadata=header)


def restore(path: Path, run: Run, identity: dict[str, Any]) -> None:
    """Bring `run` to where the checkpoint has it, in place.

    Raises:
        TrainingError: not a checkpoint, cut off, or of another run; says what differs.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise TrainingError(f"{path}: is no checkpoint of onnxprune; name another file, or delete it")
            _require_same(path, json.loads(header["run"]), identity)
            position = TypeAdapter(Position).validate_json(header["position"], strict=True)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        _apply(run, tensors)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path}: the checkpoint cannot be read: {reason}; delete it") from error
    run.position = position


def _apply(run: Run, tensors: dict[str, Tensor]) -> None:
    states: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind == "best":
            run.best[name] = tensor
        elif kind == "optimizer":
            entry, _, name = name.partition("/")
            states[name][entry] = tensor
    for name, parameter in run.parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
        if name in states:
            run.optimizer.state[parameter] = {k: _like(parameter, v) for k, v in states[name].items()}


def _like(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """On the parameter's device; in its layout, too, which a fused optimizer relies on."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _require_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in _flat(wanted).items():
        other = _flat(found).get(key)
        if json.loads(json.dumps(value)) != other:
            what = (
                f"its {key} is {other!r}, not {value!r}" if len(str(value)) < 40 else f"its {key} is another"
            )
            raise TrainingError(
                f"{path}: is a checkpoint of another run: {what}; delete it to begin anew, "
                "or give another with --checkpoint"
            )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in identity.items() if k != "options"}, **identity.get("options", {})}
