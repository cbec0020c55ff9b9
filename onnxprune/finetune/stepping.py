"""Stepping: one step of the optimizer; on a GPU recorded once and played back.

The step of a small network is dozens of kernels of a few microseconds, more than Python can start in that
time. A CUDA graph starts them all at once. It is recorded for every shape of a batch, after a few steps have
let torch choose its algorithms and the optimizer make its state. A network that draws random numbers is not
recorded, nor one whose course depends on what it computes; `unrecorded` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from onnxprune.finetune.batches import Share
from onnxprune.finetune.checkpoint import Run

_WARM = 3  # steps before one is recorded
_MOST = 4  # shapes whose step is recorded; each keeps the memory of a step
_Key = tuple[object, ...]


@dataclass
class Recorded:
    """A step on the GPU: it reads `share` and writes `loss`."""

    graph: torch.cuda.CUDAGraph
    share: Share
    loss: Tensor

    def play(self, share: Share) -> Tensor:
        """The step on another batch of the same shape."""
        for own, given in zip(_tensors(self.share), _tensors(share), strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.loss


class Steps:
    """The steps of one run; `loss` is of a share of a batch, with gradients clipped to the norm `clip`."""

    def __init__(
        self,
        run: Run,
        loss: Callable[[Share], Tensor],
        clip: float | None,
        device: torch.device,
        record: bool,
    ) -> None:
        self.unrecorded: str | None = None
        self._run, self._loss, self._clip, self._device = run, loss, clip, device
        self._record = record
        self._seen: Counter[_Key] = Counter()
        self._recorded: dict[_Key, Recorded] = {}
        if record:  # a number would be recorded with the step
            for group in run.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=device)

    def __call__(self, share: Share, rate: float) -> Tensor:
        """Train on one batch with this learning rate; its loss, valid until the next step."""
        for group in self._run.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if not self._record or self.unrecorded:
            return self._step(share)
        key = _key(share)
        if key in self._recorded:
            return self._recorded[key].play(share)
        self._seen[key] += 1
        if self._seen[key] <= _WARM or len(self._recorded) == _MOST:
            return self._watched(share)
        return self._first(key, share)

    def forget(self) -> None:
        """Record anew: the optimizer's state is another."""
        self._recorded.clear()
        self._seen.clear()

    def _step(self, share: Share) -> Tensor:
        self._run.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(share)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._run.parameters.values(), self._clip)
        self._run.optimizer.step()
        return loss.detach()

    def _watched(self, share: Share) -> Tensor:
        """A step; notes whether it drew random numbers, which a recorded one would repeat."""
        before = torch.get_rng_state(), torch.cuda.get_rng_state(self._device)
        loss = self._step(share)
        after = torch.get_rng_state(), torch.cuda.get_rng_state(self._device)
        if not all(torch.equal(one, other) for one, other in zip(before, after, strict=True)):
            self.unrecorded = "the network draws random numbers"
        return loss

    def _first(self, key: _Key, share: Share) -> Tensor:
        """Record the step, which does not run it, and play it; where that fails, take it as before."""
        inputs, targets = ([x.clone() for x in values] for values in (share.inputs, share.targets))
        own, graph = replace(share, inputs=inputs, targets=targets), torch.cuda.CUDAGraph()
        if share.labels is not None:
            own = replace(own, labels=share.labels.clone())
        try:
            with torch.cuda.graph(graph):
                loss = self._step(own)
        except RuntimeError as error:
            self.unrecorded = " ".join(str(error).split())[:200]
            return self._step(share)
        self._recorded[key] = Recorded(graph, own, loss)
        return self._recorded[key].play(share)


def _tensors(share: Share) -> list[Tensor]:
    return [*share.inputs, *share.targets, *([share.labels] if share.labels is not None else [])]


def _key(share: Share) -> _Key:
    return (share.weight, *((tuple(tensor.shape), tensor.dtype) for tensor in _tensors(share)))
