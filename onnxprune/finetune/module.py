"""Module: a normalised graph as an `nn.Module`, and its weights back in the graph.

One node of the graph is one call of a function of `ops`, in a `torch.fx.GraphModule`: what it does can be
read (`print(module.code)`), rewritten with fx, compiled, trained with any loop. The module takes the inputs
of the graph in their order and returns its output, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnx
import onnx_ir as ir
from torch import fx, nn

from onnxprune.errors import ModelError
from onnxprune.finetune.converter import Constants, Converter
from onnxprune.finetune.masks import Masks, kept_weights
from onnxprune.finetune.support import refuse_unknown
from onnxprune.finetune.weights import initializers_of, to_constant
from onnxprune.model import Model, load
from onnxprune.reading import ancestors

Source = Model | ir.Model | onnx.ModelProto | str | Path
M = TypeVar("M", Model, ir.Model)


def to_module(
    model: Source, *, masks: Masks = "zeros", outputs: Sequence[str] | None = None
) -> fx.GraphModule:
    """The model as a module whose parameters have the names of its initializers.

    Weights of layers, normalisations and affine nodes are parameters, other constants buffers. A weight that
    several nodes read is one parameter. It computes as the file says: no dropout, stored means and variances.

    Args:
        model: a file, or what `onnxprune.load` made of one (an `ir.Model` has to be normalised like that).
        masks: which weights stay zero, see `masks.masks_of`: "zeros", "none", or bool arrays by name.
        outputs: names of the values to return; those of the graph if None.

    Raises:
        ModelError: the file cannot be read, ops without a function in torch (all are named), a mask that does
            not fit, no value of the name of an output.
    """
    graph = _graph(model)
    wanted = _wanted(graph, outputs)
    needed = ancestors(wanted)
    nodes = [node for node in graph if node in needed]
    refuse_unknown(nodes)
    return Converter(Constants(graph, masks)).convert(graph.inputs, nodes, wanted)


def from_module(module: nn.Module, model: M) -> M:
    """A copy of `model` with the weights of `module`, which `to_module` made of it; all else stays the same.

    Pruned weights are written as zeros. Weights go back into the type the file has.

    Args:
        module: trained or not, in any float type, on any device.
        model: the model it was made of.

    Raises:
        ModelError: a parameter that the model has not, or has in another shape.
    """
    copy: M = _copy(model)
    initializers = initializers_of(copy.graph)
    for name, weight in kept_weights(module).items():
        constant = initializers[name].const_value if name in initializers else None
        if constant is None or tuple(constant.shape.numpy()) != tuple(weight.shape):
            has = "has no such weight" if constant is None else f"has it as {list(constant.shape.numpy())}"
            raise ModelError(
                f"parameter '{name}' {list(weight.shape)}: the model {has}; "
                "give the model that the module was made of"
            )
        initializers[name].const_value = to_constant(weight, constant)
    return copy


def _copy(model: Any) -> Any:
    return model.copy() if isinstance(model, Model) else model.clone()


def _graph(model: Source) -> ir.Graph:
    return model.graph if isinstance(model, Model | ir.Model) else load(model).graph


def _wanted(graph: ir.Graph, names: Sequence[str] | None) -> list[ir.Value]:
    if names is None:
        return list(graph.outputs)
    values = [
        *graph.inputs,
        *graph.initializers.values(),
        *(value for node in graph for value in node.outputs),
    ]
    known = {value.name: value for value in values}
    missing = [name for name in names if name not in known]
    if missing:
        raise ModelError(f"the model has no value '{missing[0]}'; `onnxprune inspect` lists its outputs")
    return [known[name] for name in names]
