"""The whole chain on trained models: each layer has a gradient that agrees with differences, or a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.emit import Emitter
from onnxprune.gradient import attach_loss, backpropagate
from onnxprune.model import load
from onnxprune.session import Session

from .build import run_reference
from .cases import Array

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MODELS = [
    "basic_pitch_nmp",
    "ch_PP-OCRv4_det_infer",
    "ch_PP-OCRv4_rec_infer",
    "ch_ppocr_mobile_v2.0_cls_infer",
    "efficientnet_lite0_224_bn",
    "magika_standard_v3_3",
    "mobilenetv1_025_128",
    "mobilenetv1_050_160",
    "mobilenetv2_100_224",
    "resnet20_cifar10",
    "resnet20_cifar10_bn",
    "resnet56_cifar10",
    "silero_vad_16k_op15",
    "silero_vad_op18_ifless",
    "vgglike_cifar10",
]
# Sizes that the models leave open; the OCR models need a height and width of their own.
SIZES = {"ch_PP-OCRv4_det_infer": (1, 3, 64, 96), "ch_PP-OCRv4_rec_infer": (1, 3, 48, 64)}
SIZES["ch_ppocr_mobile_v2.0_cls_infer"] = (2, 3, 48, 64)


# Each element moves by so much of its own size. Large steps cross kinks of Relu, Clip and MaxPool, small ones
# drown in float32: one of them has to agree. A factor or a path forgotten is wrong at every step.
STEPS = (1e-2, 1e-3, 1e-4)
TOLERANCE = 0.02
# Logarithms of next to nothing, and sigmoids as good as shut: float32 has no digits left for a difference.
IN_DOUBLE = {"basic_pitch_nmp", "ch_PP-OCRv4_det_infer"}
CHECKED = 8  # layers a model, evenly spread: two runs of the model for each step and layer


def feeds(model: ir.Model, name: str) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None
        free = {"batch": 1, "sequence": 512} if name.startswith("silero") else {}
        shape = [
            d if isinstance(d, int) and d > 0 else free.get(getattr(d, "value", ""), 2) for d in value.shape
        ]
        if name == "basic_pitch_nmp":
            shape[0] = 1
        if len(shape) == 4:
            shape = list(SIZES.get(name, shape))
        if value.dtype.is_floating_point():
            found[value.name or ""] = rng.normal(size=shape).astype(np.float32)
        elif shape:
            found[value.name or ""] = rng.integers(0, 256, size=shape).astype(value.dtype.numpy())
        else:
            found[value.name or ""] = np.array(16000, dtype=np.int64)
    return found


def doubled(model: ir.Model) -> None:
    """Turn every float32 of `model` into float64."""
    graph = model.graph
    for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.DOUBLE)
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)
    for node in graph:
        if node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.DOUBLE.value)


def evaluator(model: ir.Model, double: bool) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """In onnxruntime, or in onnx.reference for what onnxruntime has in float32 only."""
    if not double:
        return Session(model, "cpu").run
    proto = ir.to_proto(model)
    return lambda given: run_reference(proto, given)


def nudged(model: ir.Model, names: list[str], watched: list[str]) -> ir.Model:
    """A copy with an input nudge/<name> added to each of the values `names`; its outputs are `watched`."""
    copy = model.clone()
    graph = copy.graph
    values = {v.name: v for node in graph for v in node.outputs}
    for name in names:
        value = values[name]
        producer = value.producer()
        assert producer is not None
        nudge = ir.Value(name=f"nudge/{name}", type=value.type)
        total = ir.node("Add", [value, nudge], name=f"nudged/{name}")
        value.replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
        total.replace_input_with(0, value)
        total.outputs[0].name, total.outputs[0].type = f"nudged/{name}:0", value.type
        graph.insert_after(producer, total)
        graph.inputs.append(nudge)
        values[name] = total.outputs[0]
    graph.outputs[:] = [values[name] for name in watched]
    return copy


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_a_gradient_or_a_reason(name: str, shared: Path) -> None:
    model = load(shared / "models" / f"{name}.onnx").ir
    double = name in IN_DOUBLE
    given = feeds(model, name)
    if double:
        doubled(model)
        given = {key: v.astype(np.float64) if v.dtype == np.float32 else v for key, v in given.items()}
    whole = model.clone()
    graph = whole.graph
    layers = [node.outputs[0] for node in graph if node.op_type in LINEAR]
    if not layers:
        pytest.skip("all layers are inside an If")
    op = Emitter(graph)
    head = attach_loss(whole, op)
    gradients = backpropagate(graph, op, head.seeds, layers)
    for value, reasons in gradients.blocked.items():
        assert all(r.startswith(("If node", "LSTM node")) for r in reasons), (value.name, reasons)

    reached = {str(v.name): g for v, g in gradients.of.items()}
    seeds = {str(z.name): op.Identity(g) for z, g in head.seeds.items()}
    kept = {name: op.Identity(g) for name, g in reached.items()}
    graph.outputs[:] = list(dict.fromkeys([*head.seeds, *gradients.of, *seeds.values(), *kept.values()]))
    run = evaluator(nudged(model, list(reached), list(seeds)), double)
    scalar = np.float64 if double else np.float32
    zero: dict[str, Array] = {f"nudge/{name}": np.zeros((), scalar) for name in reached}
    plain = run(given | zero)
    sizes = {noise.name: z.shape for noise, z in zip(head.noise, plain.values(), strict=True)}
    found = evaluator(whole, double)(given | head.draw(np.random.default_rng(1), sizes))

    def change(layer: str, along: Array) -> float:
        """Of the loss with its seeds held fixed, between plus and minus `along`."""
        ends = [run(given | zero | {f"nudge/{layer}": sign * along}) for sign in (1, -1)]
        rows = zip(seeds.values(), *(end.values() for end in ends), strict=True)
        return sum(float(np.sum(found[str(g.name)] * (up.astype(np.float64) - down))) for g, up, down in rows)

    wrong = {}
    steps, checked = ((1e-7,), 2) if double else (STEPS, CHECKED)
    for layer in list(kept)[:: -(-len(kept) // checked)] if kept else []:
        gradient, y = found[str(kept[layer].name)], found[layer]
        along = np.sign(gradient) * np.abs(y)
        slope = float(np.sum(np.abs(gradient.astype(np.float64) * y)))
        measured = [change(layer, along * scalar(step)) / (2 * step) for step in steps]
        if min(abs(m - slope) for m in measured) > TOLERANCE * slope:
            wrong[layer] = (slope, measured)
    assert not wrong
