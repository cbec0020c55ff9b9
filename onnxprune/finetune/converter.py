"""Converter: walks a graph and writes the call of every node into a `torch.fx` graph.

Weights live in the outermost module, where their names are the initializers'; the branches of an If are
modules of their own, which are handed all that they read from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import getitem
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from onnxprune.finetune import places
from onnxprune.finetune.masks import SUFFIX, Masks, masked, masks_of
from onnxprune.finetune.ops import FUNCTIONS, LIKE, NUMBERS, SEVERAL, VECTORS
from onnxprune.finetune.weights import (
    initializers_of,
    is_float,
    is_trained,
    to_tensor,
    torch_dtype,
    working_dtype,
)


class Constants:
    """What a graph knows beforehand: its initializers by name, their masks, and the type it computes in."""

    def __init__(self, graph: ir.Graph, masks: Masks) -> None:
        found = initializers_of(graph)
        self.names = {value: name for name, value in found.items()}
        self.masks = masks_of(graph, masks)
        self.dtype = working_dtype(found.values())
        #: A weight to take device and dtype from; None in a graph without any.
        self.like = next((v for v in found.values() if is_float(v) and v.dtype == self.dtype), None)


class Branches(nn.Module):
    """An If: each branch takes what it reads, and both return the same number of values."""

    def __init__(self, then: nn.Module, otherwise: nn.Module) -> None:
        super().__init__()
        self.then, self.otherwise = then, otherwise

    def forward(
        self, condition: Tensor, then: tuple[Tensor, ...], otherwise: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The outputs of the branch that is taken."""
        found = self.then(*then) if bool(condition) else self.otherwise(*otherwise)
        return found if isinstance(found, tuple) else (found,)


class Converter:
    """Makes one module; `outer` converts the graph around it, `captured` are the values read from there."""

    def __init__(self, constants: Constants, outer: Converter | None = None) -> None:
        self.constants, self.outer = constants, outer
        self.captured: list[ir.Value] = []
        self._fx, self._root = fx.Graph(), nn.Module()
        self._values: dict[ir.Value, fx.Node] = {}

    def convert(
        self, inputs: Sequence[ir.Value], nodes: Iterable[ir.Node], outputs: Sequence[ir.Value]
    ) -> fx.GraphModule:
        """The module that computes `outputs` by `nodes`, which are sorted; captured values are its inputs."""
        for value in inputs:
            self._input(value)
        for node in nodes:
            self._call(node)
        results = tuple(self.value(value) for value in outputs)
        self._fx.output(results[0] if len(results) == 1 else results)
        return places.OnnxModule(self._root, self._fx, class_name="OnnxModule")

    def value(self, value: ir.Value) -> fx.Node:
        """The fx node of a value; a constant is read where it is first wanted, and once."""
        if value not in self._values:
            if self.outer is None:
                self._values[value] = self._initializer(value)
            else:
                self.captured.append(value)
                self._input(value)
        return self._values[value]

    def _input(self, value: ir.Value) -> None:
        name = places.identifier(value.name or "input")
        taken = {node.target for node in self._fx.nodes if node.op == "placeholder"}
        while name in taken:
            name += "_"
        calls = (node for node in self._fx.nodes if node.op != "placeholder")
        with self._fx.inserting_before(
            next(calls, self._fx._root)
        ):  # arguments come first, captured ones too
            self._values[value] = self._fx.placeholder(name)

    def _call(self, node: ir.Node) -> None:
        """Append the call for `node`."""
        if node.op_type == "Constant":
            (attribute,) = node.attributes.values()
            output = node.outputs[0]
            self._values[output] = self._tensor(output.name or "", to_tensor(ir.tensor(_array(attribute))))
            return
        if node.op_type == "If":
            self._assign(node, self._branches(node))
            return
        arguments = tuple(self._argument(node, index) for index in range(len(node.inputs)))
        keywords: dict[str, Any] = {}
        for name, attribute in node.attributes.items():
            keywords.update(self._keyword(name, attribute))
        if node.op_type in LIKE:
            keywords["like"] = self._like()
        name = places.identifier(node.outputs[0].name or "")
        if node.op_type in SEVERAL:
            keywords["outputs"] = len(node.outputs)
        call = self._fx.create_node("call_function", FUNCTIONS[node.op_type], arguments, keywords, name)
        if node.op_type in SEVERAL:
            self._assign(node, call)
        else:
            self._values[node.outputs[0]] = call

    def _assign(self, node: ir.Node, several: fx.Node) -> None:
        for index, output in enumerate(node.outputs):
            self._values[output] = self._fx.call_function(getitem, (several, index))

    def _branches(self, node: ir.Node) -> fx.Node:
        modules, given = [], []
        for name in ("then_branch", "else_branch"):
            graph, converter = node.attributes[name].as_graph(), Converter(self.constants, self)
            modules.append(converter.convert((), graph, graph.outputs))
            given.append(tuple(self.value(value) for value in converter.captured))
        target = places.put_module(self._root, Branches(*modules))
        condition = self._argument(node, 0)
        return self._fx.create_node("call_module", target, (condition, *given))

    def _argument(self, node: ir.Node, index: int) -> Any:
        value = node.inputs[index]
        if value is None:
            return None
        known = _known(value)
        if known is not None:
            if index in VECTORS.get(node.op_type, ()):
                return known.reshape(-1).tolist()
            if index in NUMBERS.get(node.op_type, ()) and known.size == 1:
                return known.item()
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
        return None if dtype == self.constants.dtype else torch_dtype(dtype)

    def _initializer(self, value: ir.Value) -> fx.Node:
        name, constant = self.constants.names[value], value.const_value
        assert constant is not None  # so `initializers_of` found it
        tensor = to_tensor(constant)
        if not is_trained(value):
            return self._tensor(name, tensor)
        weight = self._tensor(name, nn.Parameter(tensor))
        if name not in self.constants.masks:
            return weight
        kept = to_tensor(ir.tensor(self.constants.masks[name]))
        return self._fx.call_function(masked, (weight, self._tensor(f"{name}{SUFFIX}", kept)))

    def _tensor(self, name: str, tensor: Tensor) -> fx.Node:
        names = self.constants.names.values()
        places.put(self._root, name, names, tensor)
        table = "_parameters" if isinstance(tensor, nn.Parameter) else "_buffers"
        return places.read(self._fx, name, names, table)

    def _like(self) -> fx.Node:
        if self.constants.like is not None:
            return self.value(self.constants.like)
        return self._tensor("onnxprune:like", to_tensor(ir.tensor(0.0, dtype=self.constants.dtype)))


def _known(value: ir.Value) -> npt.NDArray[Any] | None:
    """The array of a constant: an initializer, or in a branch the output of a Constant node."""
    if value.is_initializer() and value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is None or producer.op_type != "Constant":
        return None
    (attribute,) = producer.attributes.values()
    return _array(attribute)


def _array(attribute: ir.Attr) -> npt.NDArray[Any]:
    """What a Constant node with this attribute gives."""
    if attribute.type is ir.AttributeType.TENSOR:
        return attribute.as_tensor().numpy()
    whole = attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS)
    return np.array(attribute.value, dtype=np.int64 if whole else np.float32)
