"""Networks: who learns and who teaches, and what they say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onnxprune.data import Data
from onnxprune.finetune.batches import share_of
from onnxprune.finetune.objective import Objective


@dataclass
class Networks:
    """Who learns and who teaches; both return the values the objective names."""

    student: nn.Module
    teacher: nn.Module | None
    objective: Objective
    precision: torch.dtype

    def outputs(self, inputs: list[Tensor], module: nn.Module | None = None) -> tuple[Tensor, ...]:
        """What the student, or `module` around it, says."""
        return self._run(module or self.student, inputs)

    def targets(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        """What the teacher says; nothing without one."""
        if self.teacher is None:
            return ()
        with torch.no_grad():
            return self._run(self.teacher, inputs)

    def exact(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        """What the student says without autocast."""
        return _call(self.student, inputs)

    def loss(self, data: Data, device: torch.device) -> float:
        """The objective's mean over `data`, nothing being trained."""
        total = torch.zeros((), dtype=torch.float64, device=device)
        with torch.no_grad():
            for batch in data.batches():
                share = share_of(batch, data, 0, 1, device)
                outputs, targets = self.outputs(share.inputs), self.targets(share.inputs)
                total += self.objective(outputs, targets, share.labels) * batch.count
        return float(total) / data.count

    def _run(self, module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        mixed = self.precision != torch.float32
        with torch.autocast(inputs[0].device.type, self.precision, enabled=mixed):
            return _call(module, inputs)


def _call(module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """With floats in the type of the module's weights, which may be wider than the file's."""
    dtype = next(module.parameters()).dtype
    found = module(*(x.to(dtype) if x.is_floating_point() else x for x in inputs))
    return found if isinstance(found, tuple) else (found,)
