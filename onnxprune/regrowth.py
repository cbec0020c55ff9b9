"""Regrowth: weights that end up on dead units say nothing; as many others come back instead.

So the ratio is exact after the dead units are gone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.layers import find_layers
from onnxprune.model import parameters
from onnxprune.passes.dead_units import dead_mask
from onnxprune.ranking import best_of_all
from onnxprune.task import Array, Mask, Masks, Task

_REGROWTHS = 30  # each round of regrowth frees fewer weights than the last


def regrown(task: Task, model: ir.Model, kept: Masks, scores: dict[str, Array]) -> Masks:
    """Masks with the same number of parameters in use, none of them on a dead unit.

    What dies is taken out of the masks, and as many of the best weights that may live come back, until
    nothing dies.
    """
    layers = {layer.name: layer for layer in find_layers(model.graph) if layer.name in scores}
    whole, kept = kept, {name: kept[name] for name in scores}
    goal = sum(int(mask.sum()) for mask in kept.values())
    weights = {layer.weight.name for layer in layers.values()}
    refitted = {layer.bias.name for layer in layers.values() if layer.bias is not None}
    if task.options.surgeon == "none":
        refitted = set()
    others = {name: tensor.numpy() for name, tensor in parameters(model).items() if name not in weights}
    never = {name: ~task.off_units(layer) for name, layer in layers.items()}
    gone_before = _dead_by_units(task)
    for _ in range(_REGROWTHS):
        tensors = {layer.weight.name or "": layer.tensor(kept[name]) for name, layer in layers.items()}
        dead = dead_mask(model, tensors)
        freed = sum(
            int(
                np.count_nonzero(
                    _freed(dead[name], gone_before.get(name)) & ((array != 0) | (name in refitted))
                )
            )
            for name, array in others.items()
            if name in dead
        )
        for name, layer in layers.items():
            gone = layer.matrix(dead[layer.weight.name or ""]) != 0
            never[name] |= gone
            kept = {**kept, name: kept[name] & ~gone}
        missing = goal + freed - sum(int(mask.sum()) for mask in kept.values())
        if missing <= 0:
            break
        free = {name: ~(never[name] | kept[name]) for name in kept}
        room = sum(int(np.count_nonzero(mask)) for mask in free.values())
        back = best_of_all({name: scores[name] for name in kept}, min(missing, room), {}, free)
        kept = {name: mask | back[name] for name, mask in kept.items()}
        if room <= missing:
            break
    return whole | kept


def _freed(dead: Mask, before: Mask | None) -> Mask:
    return dead if before is None else dead & ~before


def _dead_by_units(task: Task) -> Masks:
    """What goes with the units of the cut: the budget never counted it."""
    layers = find_layers(task.dense.graph)
    tensors = {layer.weight.name or "": layer.tensor(task.off_units(layer)) for layer in layers}
    return dead_mask(task.dense, tensors) if task.cut is not None else {}
