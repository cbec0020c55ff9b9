"""One-op models, their backward graphs, and the two places they are run in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf

from onnxprune.emit import Emitter
from onnxprune.gradient import Gradients, backpropagate
from onnxprune.session import Session

from .cases import Array, Case, Fixed


def in_dtype(array: Array, dtype: Any) -> Array:
    return array.astype(dtype) if array.dtype == np.float64 else array


def forward_model(
    op_type: str, case: Case, dtype: Any, symbolic: bool, late: Collection[int] = ()
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The one-op model and its feeds; what is not differentiated is an initializer, or in `late` an input."""
    names: list[str] = []
    inputs, feeds, constants = [], {}, []
    for index, given in enumerate(case.inputs):
        name = "" if given is None else f"late{index}" if index in late else f"x{index}"
        names.append(name)
        if given is None:
            continue
        array = in_dtype(np.asarray(given.array if isinstance(given, Fixed) else given), dtype)
        if index not in late and (isinstance(given, Fixed) or array.dtype.kind != "f"):
            constants.append(numpy_helper.from_array(array, name))
            continue
        feeds[name] = array
        # kernel sizes are always known: they are attributes, or the shape of a weight
        known = 2 if op_type in ("Conv", "ConvTranspose") and index == 1 else array.ndim
        free = [f"{name}_{axis}" for axis in range(known)] if symbolic else array.shape[:known]
        shape = [*free, *array.shape[known:]]
        inputs.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
        )
    outputs = [f"y{index}" for index in range(case.outputs)]
    attributes = dict(case.attributes)
    if op_type == "Cast":
        attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node(op_type, names, outputs, name="n", **attributes)
    graph = helper.make_graph(
        [node], "g", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=False), feeds


def backward_model(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Gradients]:
    """`model` with an input seed<i> for every float output y<i>, an output grad_<x> for every float input."""
    whole = ir.from_proto(model)
    graph = whole.graph
    seeds = {}
    for index, output in enumerate(graph.outputs):
        # shape inference knows nothing of some newer ops: the type is then left open, as it is in real models
        if output.dtype is None or output.dtype.is_floating_point():
            seed = ir.Value(name=f"seed{index}", shape=output.shape, type=output.type or graph.inputs[0].type)
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


def _tensor(array: Array) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array))  # torch takes no negative strides


class Pad(OpRun):
    """onnx.reference hands negative pads, which crop, to numpy.pad, which refuses them."""

    op_domain = ""

    def _run(
        self, data: Array, pads: Array, value: Any = None, axes: Any = None, mode: str = "constant"
    ) -> tuple[Array]:
        chosen = range(data.ndim) if axes is None else [int(axis) for axis in axes]
        both = [(0, 0)] * data.ndim
        for n, axis in enumerate(chosen):
            both[axis] = int(pads[n]), int(pads[n + len(chosen)])
        crop = tuple(
            slice(max(-b, 0), size - max(-e, 0)) for (b, e), size in zip(both, data.shape, strict=True)
        )
        grow = [(max(b, 0), max(e, 0)) for b, e in both]
        if mode == "constant":
            return (np.pad(data[crop], grow, constant_values=0 if value is None else value.item()),)
        return (np.pad(data[crop], grow, mode=mode),)  # type: ignore[call-overload]  # mode is one of three


class Conv(OpRun):
    """onnx.reference is wrong for groups with more than one channel; torch has the same sum in double."""

    op_domain = ""

    def _run(self, x: Array, w: Array, b: Any = None, **kw: Any) -> tuple[Array]:
        n = w.ndim - 2
        sizes = [(w.shape[2 + a] - 1) * (kw["dilations"] or [1] * n)[a] + 1 for a in range(n)]
        pads = list(kw["pads"] or [0] * 2 * n)
        strides = list(kw["strides"] or [1] * n)
        if kw["auto_pad"] not in (None, "NOTSET", "VALID"):
            totals = [
                max((-(-x.shape[2 + a] // strides[a]) - 1) * strides[a] + sizes[a] - x.shape[2 + a], 0)
                for a in range(n)
            ]
            less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
            pads = more + less if kw["auto_pad"] == "SAME_LOWER" else less + more
        flat = [p for a in reversed(range(n)) for p in (pads[a], pads[a + n])]
        f = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
        bias = None if b is None else torch.tensor(b)
        image = F.pad(_tensor(x), flat)
        dilations = list(kw["dilations"] or [1] * n)
        return (f(image, _tensor(w), bias, strides, 0, dilations, kw["group"] or 1).numpy(),)


class ConvTranspose(OpRun):
    """As `Conv`."""

    op_domain = ""

    def _run(self, x: Array, w: Array, b: Any = None, **kw: Any) -> tuple[Array]:
        n = w.ndim - 2
        strides, dilations = list(kw["strides"] or [1] * n), list(kw["dilations"] or [1] * n)
        extra, pads = list(kw["output_padding"] or [0] * n), list(kw["pads"] or [0] * 2 * n)
        if kw["auto_pad"] not in (None, "NOTSET", "VALID"):
            totals = [extra[a] + (w.shape[2 + a] - 1) * dilations[a] + 1 - strides[a] for a in range(n)]
            less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
            pads = less + more if kw["auto_pad"] == "SAME_UPPER" else more + less
        f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        bias = None if b is None else torch.tensor(b)
        group = kw["group"] or 1
        # torch asks for an output_padding below the stride: the rest is zeros, and the bias
        y = f(_tensor(x), _tensor(w), None, strides, 0, 0, group, dilations)
        flat = [p for a in reversed(range(n)) for p in (-pads[a], extra[a] - pads[a + n])]
        y = F.pad(y, flat)
        return ((y if bias is None else y + bias.reshape(-1, *[1] * n)).numpy(),)


class GlobalMaxPool(OpRun):
    """onnx.reference fails on one spatial axis."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """onnx.reference has none."""

    op_domain = ""

    def _run(self, x: Array, p: int = 2) -> tuple[Array]:
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class Erf(OpRun):
    """onnx.reference has an approximation, right to 2e-8."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (erf(x),)


REPLACED = [Pad, Erf, Conv, ConvTranspose, GlobalMaxPool, GlobalLpPool]


def run_reference(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    outputs = [output.name for output in model.graph.output]
    with np.errstate(all="ignore"):  # of a Where both branches are computed, the one not taken too
        return dict(zip(outputs, ReferenceEvaluator(model, new_ops=REPLACED).run(None, feeds), strict=True))


def run_onnxruntime(
    model: onnx.ModelProto, feeds: dict[str, Array], optimise: bool = True
) -> dict[str, Array]:
    return Session(model.SerializeToString(), "cpu", threads=1, optimise=optimise).run(feeds)
