"""Masks: which weights stay zero, whatever an optimizer does.

A pruned weight is read through its mask, ``where(kept, weight, 0)``, so that the network computes with zeros
there and the gradient of a pruned entry is exactly zero: momentum has nothing to remember and weight decay
nothing to shrink. An optimizer that adds noise of its own moves an entry nobody reads, and `from_module`
writes zero. No hook, no wrapper of the optimizer, and the parameters keep their names; the mask is the buffer
`<name>:mask`, saved and moved with the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxprune.errors import ModelError
from onnxprune.layers import find_layers

Masks = Literal["zeros", "none"] | Mapping[str, npt.NDArray[np.bool_]]
SUFFIX = ":mask"


def masked(weight: Tensor, kept: Tensor) -> Tensor:
    """`weight` where it is kept, zero elsewhere."""
    return torch.where(kept, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))


def masks_of(graph: ir.Graph, masks: Masks) -> dict[str, npt.NDArray[np.bool_]]:
    """Bool arrays, True = kept, by name of the initializer, for those that are not kept whole.

    Args:
        graph: normalised.
        masks: "zeros": an entry of a linear layer's weight that is zero now stays zero (biases are free);
            "none": none; or arrays by name of the initializer.

    Raises:
        ModelError: a mask for something that is no float initializer, or of another shape.
    """
    if masks == "none":
        return {}
    found = _zeros(graph) if isinstance(masks, str) else _given(graph, masks)
    return {name: mask for name, mask in found.items() if not mask.all()}


def _zeros(graph: ir.Graph) -> dict[str, npt.NDArray[np.bool_]]:
    weights = (layer.weight for layer in find_layers(graph))
    return {w.name or "": w.const_value.numpy() != 0 for w in weights if w.const_value is not None}


def _given(graph: ir.Graph, masks: Mapping[str, Any]) -> dict[str, npt.NDArray[np.bool_]]:
    found = {}
    for name, array in masks.items():
        value, mask = graph.initializers.get(name), np.asarray(array) != 0
        if value is None or value.const_value is None or not value.const_value.dtype.is_floating_point():
            raise ModelError(f"mask '{name}': the model has no weight of this name; see `onnxprune inspect`")
        if mask.shape != tuple(value.const_value.shape.numpy()):
            shape = list(value.const_value.shape.numpy())
            raise ModelError(
                f"mask '{name}': has shape {list(mask.shape)}, the weight {shape}; make them equal"
            )
        found[name] = mask
    return found


def kept_weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a converted module by name, detached, zero where they are pruned."""
    kept = {name.removesuffix(SUFFIX): mask for name, mask in module.named_buffers() if name.endswith(SUFFIX)}
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return {name: masked(weight, kept[name]) if name in kept else weight for name, weight in weights.items()}
