"""One-op models, their backward graphs, and the two places they are run in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.emit import Emitter
from onnxprune.gradient import Gradients, backpropagate
from onnxprune.session import Session

from .cases import Array, Case, Fixed


def in_dtype(array: Array, dtype: Any) -> Array:
    return array.astype(dtype) if array.dtype == np.float64 else array


def forward_model(op_type: str, case: Case, dtype: Any, symbolic: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The one-op model and its feeds; what is not differentiated is an initializer."""
    names: list[str] = []
    inputs, feeds, constants = [], {}, []
    for index, given in enumerate(case.inputs):
        name = "" if given is None else f"x{index}"
        names.append(name)
        if given is None:
            continue
        array = in_dtype(np.asarray(given.array if isinstance(given, Fixed) else given), dtype)
        if isinstance(given, Fixed) or array.dtype.kind != "f":
            constants.append(numpy_helper.from_array(array, name))
            continue
        feeds[name] = array
        shape = [f"{name}_{axis}" for axis in range(array.ndim)] if symbolic else array.shape
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    outputs = [f"y{index}" for index in range(case.outputs)]
    attributes = dict(case.attributes)
    if op_type == "Cast":
        attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node(op_type, names, outputs, name="n", **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=False), feeds


def backward_model(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Gradients]:
    """`model` with an input seed<i> for every float output y<i>, and an output grad_<x> for every float input."""
    whole = ir.from_proto(model)
    graph = whole.graph
    seeds = {}
    for index, output in enumerate(graph.outputs):
        if output.dtype is not None and output.dtype.is_floating_point():
            seed = ir.Value(name=f"seed{index}", shape=output.shape, type=output.type)
            graph.inputs.append(seed)
            seeds[output] = seed
    wanted = [v for v in graph.inputs if v.name and v.name.startswith("x")]
    op = Emitter(graph)
    gradients = backpropagate(graph, op, seeds, wanted)
    for value, grad in gradients.of.items():
        output = op.Identity(grad)
        output.name, output.type, output.shape = f"grad_{value.name}", value.type, value.shape
        graph.outputs.append(output)
    return ir.to_proto(whole), gradients


def run_reference(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    outputs = [output.name for output in model.graph.output]
    return dict(zip(outputs, ReferenceEvaluator(model).run(None, feeds), strict=True))


def run_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Array], optimise: bool = True) -> dict[str, Array]:
    return Session(model.SerializeToString(), "cpu", threads=1, optimise=optimise).run(feeds)


FLOAT = TensorProto.FLOAT
