"""Room: what pruning takes of memory beside statistics, and what is left of a limit for the frontiers.

Counted are the pruned copy of the weights, their scores and masks, and the layer that takes most while it is
scored and refitted: its factor, that of the damped factor's inverse and a float32 copy, or the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.data import Data
from onnxprune.dual import pays
from onnxprune.errors import MemoryBudgetError
from onnxprune.layers import Layer
from onnxprune.memory import release, resident
from onnxprune.statistics import kept_positions, value_bytes
from onnxprune.sweep import Limits

_A_WEIGHT = 14  # bytes: 4 of the pruned copy, 8 of its score, two masks
_A_SQUARE = 44  # of a column squared: five float64 matrices and a float32 one
_AN_OUTPUT = 32  # of an output squared: four float64 matrices
_A_FITTED = 80  # of a weight while its layer is refitted from moments, in float64
_FROM_ROWS = 24  # the same from rows, in float32
_AT_ONCE = 64  # of the limit, the values before and behind a layer that run at once
_RUN = 8  # times as much is taken by what is fed and comes out, what it is reordered to, and features


def required(layers: Sequence[Layer], data: Data, limit: int) -> int:
    """The peak of resident memory that is predicted for pruning, frontiers as far as there is room for them.

    Raises:
        MemoryBudgetError: more than `limit`; names the layer that takes most.
    """
    release()
    weights = _A_WEIGHT * sum(layer.size for layer in layers)
    work = {layer.name: _work(layer, data.count) for layer in layers}
    name = max(work, key=lambda name: work[name])
    beside, run = resident() + weights, _RUN * (limit // _AT_ONCE)
    if beside + work[name] + run > limit:
        least = (beside + work[name]) * _AT_ONCE // (_AT_ONCE - _RUN)
        raise MemoryBudgetError(
            f"layer {name!r} takes {work[name]:,} bytes while it is refitted, beside {beside:,} of the "
            f"program, the model and its scores and {run:,} of what runs at once: more than --memory "
            f"{limit:,}; give at least --memory {-(-least // 2**20) + 1}MiB"
        )
    values = 2 * data.count * max(map(value_bytes, layers))
    return min(limit, beside + work[name] + run + values)


def for_sweep(layers: Sequence[Layer], data: Data, limit: int) -> Limits:
    """What of a limit the sweep may take: what runs at once, and what is left for its two frontiers."""
    release()
    at_once = limit // _AT_ONCE
    left = limit - resident() - max(_work(layer, data.count) for layer in layers) - _RUN * at_once
    return Limits(max(0, left) // 2, at_once)


def _work(layer: Layer, samples: int) -> int:
    positions = kept_positions(layer, None)
    outputs = _AN_OUTPUT * layer.groups * layer.d_out**2
    if positions is not None and pays(positions * samples, layer.d_in):
        rows = 8 * layer.groups * positions * samples * (layer.d_in + layer.d_out)
        return _FROM_ROWS * layer.size + rows + outputs
    return _A_SQUARE * layer.groups * (layer.d_in + 1) ** 2 + _A_FITTED * layer.size + outputs
