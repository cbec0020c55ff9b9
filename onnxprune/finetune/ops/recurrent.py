"""LSTM, GRU and RNN with their usual activations; x is [time, batch, in], states [directions, batch, hidden].

ONNX has the gates of an LSTM in the order i, o, f, c and those of a GRU in z, r, h; torch's own kernels want
i, f, c, o and r, z, h. What torch has no kernel for, a GRU whose reset gate comes before the product, is a
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onnxprune.finetune.ops.common import Function

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def _in_order(weights: Tensor, gates: Sequence[int]) -> Tensor:
    """The blocks of rows, one a gate, in another order."""
    blocks = weights.chunk(len(gates))
    return torch.cat([blocks[gate] for gate in gates])


def _kernel(
    cell: Callable[..., Any], op: str, x: Tensor, states: list[Tensor], w: Tensor, r: Tensor, b: Tensor | None
) -> list[Tensor]:
    """Run one direction; the outputs [time, batch, hidden] and the last states [1, batch, hidden]."""
    gates = _GATES[op]
    weights = [_in_order(w, gates), _in_order(r, gates)]
    if b is not None:
        weights += [_in_order(part, gates) for part in b.chunk(2)]
    hidden = tuple(states) if len(states) > 1 else states[0]
    return list(cell(x, hidden, weights, b is not None, 1, 0.0, False, False, False))


def _gru_cell(x: Tensor, states: list[Tensor], w: Tensor, r: Tensor, b: Tensor | None) -> list[Tensor]:
    """ONNX's own GRU: h̃ = tanh(W x + R (r ⊙ h) + b)."""
    h, (r_z, r_r, r_h) = states[0][0], r.chunk(3)
    bias = b if b is not None else x.new_zeros(2 * len(w))
    given, (b_z, b_r, b_h) = x @ w.T + bias[: len(w)], bias[len(w) :].chunk(3)
    outputs = []
    for step in given:
        x_z, x_r, x_h = step.chunk(3, -1)
        update = torch.sigmoid(x_z + h @ r_z.T + b_z)
        reset = torch.sigmoid(x_r + h @ r_r.T + b_r)
        h = (1 - update) * torch.tanh(x_h + (reset * h) @ r_h.T + b_h) + update * h
        outputs.append(h)
    return [torch.stack(outputs), h[None]]


def _run(
    step: Callable[..., list[Tensor]],
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    given: Sequence[Tensor | None],
    direction: str,
    outputs: int,
) -> list[Tensor]:
    """Each direction by itself, and their outputs [time, directions, batch, hidden] beside one another."""
    zeros = x.new_zeros((len(w), x.shape[1], r.shape[-1]))
    states = [state if state is not None else zeros for state in given]
    results = []
    for index in range(len(w)):
        backwards = direction == "reverse" or index == 1
        own = [state[index : index + 1] for state in states]
        bias = b[index] if b is not None else None
        y, *last = step(x.flip(0) if backwards else x, own, w[index], r[index], bias)
        results.append([(y.flip(0) if backwards else y).unsqueeze(1), *last])
    whole = [torch.cat(parts, dim=1 if n == 0 else 0) for n, parts in enumerate(zip(*results, strict=True))]
    return whole[:outputs]


def _lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peepholes: None = None,
    *,
    hidden_size: int = 0,
    direction: str = "forward",
    outputs: int,
    **usual: Any,
) -> list[Tensor]:
    def step(*given: Any) -> list[Tensor]:
        return _kernel(torch.lstm, "LSTM", *given)

    return _run(step, x, w, r, b, (h, c), direction, outputs)


def _gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: None = None,
    h: Tensor | None = None,
    *,
    hidden_size: int = 0,
    direction: str = "forward",
    linear_before_reset: int = 0,
    outputs: int,
    **usual: Any,
) -> list[Tensor]:
    def step(*given: Any) -> list[Tensor]:
        return _kernel(torch.gru, "GRU", *given) if linear_before_reset else _gru_cell(*given)

    return _run(step, x, w, r, b, (h,), direction, outputs)


def _rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: None = None,
    h: Tensor | None = None,
    *,
    hidden_size: int = 0,
    direction: str = "forward",
    outputs: int,
    **usual: Any,
) -> list[Tensor]:
    def step(*given: Any) -> list[Tensor]:
        return _kernel(torch.rnn_tanh, "RNN", *given)

    return _run(step, x, w, r, b, (h,), direction, outputs)


RECURRENT: dict[str, Function] = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
