"""Module: a normalised graph as an `nn.Module`, and its weights back in the graph.

One node of the graph is one call of a function of `ops`, in a `torch.fx.GraphModule`: what it does can be
read (`print(module.code)`), rewritten with fx, compiled, trained with any loop. The module takes the inputs
of the graph in their order and returns its output, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from onnxprune.errors import ModelError
from onnxprune.finetune import places
from onnxprune.finetune.masks import SUFFIX, Masks, kept_weights, masked, masks_of
from onnxprune.finetune.ops import FUNCTIONS, LIKE, NUMBERS, SEVERAL, VECTORS
from onnxprune.finetune.weights import (
    is_float,
    is_trained,
    to_constant,
    to_tensor,
    torch_dtype,
    working_dtype,
)
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
    converter = _Converter(graph, masks)
    for value in graph.inputs:
        converter.add_input(value)
    for node in nodes:
        converter.convert(node)
    results = tuple(converter.value(value) for value in wanted)
    converter.fx.output(results[0] if len(results) == 1 else results)
    return places.OnnxModule(converter.root, converter.fx, class_name="OnnxModule")


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
    initializers = copy.graph.initializers
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


def refuse_unknown(nodes: Sequence[ir.Node]) -> None:
    """Raise for nodes without a function, all in one sentence.

    Raises:
        ModelError: names each op with one of its nodes.
    """
    found: dict[str, list[str]] = {}
    for node in nodes:
        problem = _problem(node)
        if problem is not None:
            found.setdefault(problem, []).append(f"'{node.name}'")
    if found:
        listed = [
            f"{op} (node {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
            for op, names in found.items()
        ]
        raise ModelError(
            f"cannot be converted to torch: no function for {', '.join(listed)}; "
            "export it without them, or prune it without fine-tuning"
        )


def _problem(node: ir.Node) -> str | None:
    """The op of a node that has no function, with its domain or the form that has none."""
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}.{node.op_type}"
    if node.op_type not in FUNCTIONS:
        return node.op_type
    return next(
        (f"{node.op_type} {form}" for form, is_so in _FORMS.get(node.op_type, ()) if is_so(node)), None
    )


def _trains(node: ir.Node) -> bool:
    if node.op_type != "Dropout":
        return bool(node.attributes.get_int("training_mode", 0))
    flag = node.inputs[2] if len(node.inputs) > 2 else None
    return flag is not None and (flag.const_value is None or bool(flag.const_value.numpy().any()))


# Forms of an op without a function.
_FORMS: dict[str, list[tuple[str, Callable[[ir.Node], bool]]]] = {
    "BatchNormalization": [("in training mode", _trains)],
    "Cast": [
        (
            "to a type torch has not",
            lambda node: torch_dtype(ir.DataType(node.attributes["to"].as_int())) is None,
        )
    ],
    "Dropout": [("in training mode", _trains)],
}


class _Converter:
    """What is made while walking a graph: the fx graph, and the tensors it reads in `root`."""

    def __init__(self, graph: ir.Graph, masks: Masks) -> None:
        self.fx, self.root = fx.Graph(), nn.Module()
        self.values: dict[ir.Value, fx.Node] = {}
        self._initializers = graph.initializers
        self._masks = masks_of(graph, masks)
        self._names = frozenset(graph.initializers)
        self._float = working_dtype(graph)
        self._like = next(
            (v for v in graph.initializers.values() if is_float(v) and v.dtype == self._float), None
        )

    def add_input(self, value: ir.Value) -> None:
        """Append an argument of the module."""
        name = places.identifier(value.name or "input")
        taken = {node.target for node in self.values.values()}
        while name in taken:
            name += "_"
        self.values[value] = self.fx.placeholder(name)

    def value(self, value: ir.Value) -> fx.Node:
        """The fx node of a value; a constant is read where it is first wanted, and once."""
        if value not in self.values:
            self.values[value] = self._constant(value)
        return self.values[value]

    def convert(self, node: ir.Node) -> None:
        """Append the call for `node`."""
        arguments = tuple(self._argument(node, index) for index in range(len(node.inputs)))
        keywords: dict[str, Any] = {}
        for name, attribute in node.attributes.items():
            keywords.update(self._keyword(name, attribute))
        if node.op_type in SEVERAL:
            keywords["outputs"] = len(node.outputs)
        if node.op_type in LIKE:
            keywords["like"] = self.value(self._like) if self._like is not None else self._reference()
        first = node.outputs[0]
        call = self.fx.create_node(
            "call_function", FUNCTIONS[node.op_type], arguments, keywords, places.identifier(first.name or "")
        )
        if node.op_type not in SEVERAL:
            self.values[first] = call
            return
        for index, output in enumerate(node.outputs):
            self.values[output] = self.fx.call_function(getitem, (call, index))

    def _argument(self, node: ir.Node, index: int) -> Any:
        value = node.inputs[index]
        if value is None:
            return None
        if value.const_value is not None and value.is_initializer():
            array = value.const_value.numpy()
            if index in VECTORS.get(node.op_type, ()):
                return array.reshape(-1).tolist()
            if index in NUMBERS.get(node.op_type, ()) and array.size == 1:
                return array.item()
        return self.value(value)

    def _keyword(self, name: str, attribute: ir.Attr) -> dict[str, Any]:
        if name in ("to", "dtype"):
            return {"dtype": self._dtype(ir.DataType(attribute.as_int()))}
        if attribute.type is ir.AttributeType.TENSOR:  # what a ConstantOfShape is filled with
            tensor = attribute.as_tensor()
            return {name: tensor.numpy().item(), "dtype": self._dtype(tensor.dtype)}
        value = attribute.value
        return {name: list(value) if isinstance(value, tuple | list) else value}

    def _dtype(self, dtype: ir.DataType) -> torch.dtype | None:
        return None if dtype == self._float else torch_dtype(dtype)

    def _constant(self, value: ir.Value) -> fx.Node:
        name, constant = value.name or "", value.const_value
        assert constant is not None  # a normalised graph is sorted: all else has been made before
        tensor = to_tensor(constant)
        if not is_trained(value):
            return self._tensor(name, tensor)
        weight = self._tensor(name, nn.Parameter(tensor))
        if name not in self._masks:
            return weight
        kept = to_tensor(ir.tensor(self._masks[name]))
        return self.fx.call_function(masked, (weight, self._tensor(f"{name}{SUFFIX}", kept)))

    def _tensor(self, name: str, tensor: Tensor) -> fx.Node:
        places.put(self.root, name, self._names, tensor)
        table = "_parameters" if isinstance(tensor, nn.Parameter) else "_buffers"
        return places.read(self.fx, name, self._names, table)

    def _reference(self) -> fx.Node:
        """A tensor for device and dtype in a graph that has no weights."""
        return self._tensor("onnxprune:like", to_tensor(ir.tensor(0.0, dtype=self._float)))
