"""Trained models of others: forward as in onnxruntime, gradients as in our ONNX gradient graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from gradient.cases import Array
from gradient.test_models import MODELS, feeds

from onnxprune.emit import Emitter
from onnxprune.finetune import from_module, to_module
from onnxprune.gradient import backpropagate
from onnxprune.model import load, parameters
from onnxprune.session import Session

# Of the largest magnitude of an output. float32, in another order of summing; the pitch model takes
# logarithms of next to nothing, where every digit counts, and voices in noise have a probability of 1e-4.
FORWARD = {"basic_pitch_nmp": 3e-4, "silero_vad_16k_op15": 1e-4, "silero_vad_op18_ifless": 1e-4}
# ‖difference‖ / ‖gradient‖ over all weights together. Where a Clip or Relu is within rounding of its kink,
# the two take different sides, and one such activation of a mobile net weighs much: 1e-4 on one thread,
# 1.2e-3 on two, which sum in another order. A wrong rule is off by the order of one.
BACKWARD, CLIPPED = 1e-3, 1e-2
# Their layers are inside an If, into which our own gradient graph does not go.
DIFFERENTIABLE = [name for name in MODELS if not name.startswith("silero")]
# Their gradient graphs take onnxruntime some seconds each to load.
SECONDS = {
    "basic_pitch_nmp",
    "ch_PP-OCRv4_det_infer",
    "ch_ppocr_mobile_v2.0_cls_infer",
    "efficientnet_lite0_224_bn",
}
SECONDS |= {"mobilenetv2_100_224", "ch_PP-OCRv4_rec_infer"}
# Its Sigmoid is all but shut on noise, and onnxruntime's has no digits there: the value in front is compared.
WATCHED = {"ch_PP-OCRv4_det_infer": "Sigmoid"}


def watched(model: ir.Model, name: str) -> list[ir.Value]:
    if name not in WATCHED:
        return list(model.graph.outputs)
    (node,) = (node for node in model.graph if node.op_type == WATCHED[name])
    (value,) = node.inputs
    assert value is not None
    return [value]


def gradients(
    model: ir.Model, outputs: list[ir.Value], names: list[str], given: dict[str, Array]
) -> dict[str, Array]:
    """∂⟨seed, outputs⟩ by the weights `names`, from the gradient graph in onnxruntime; seeds are given."""
    graph, op = model.graph, Emitter(model.graph)
    seeds = {}
    for number, output in enumerate(outputs):
        seed = ir.Value(name=f"seed{number}", type=output.type, shape=output.shape)
        graph.inputs.append(seed)
        seeds[output] = seed
    found = backpropagate(graph, op, seeds, [graph.initializers[name] for name in names])
    assert not found.blocked
    graph.outputs[:] = [op.Identity(found.of[graph.initializers[name]]) for name in names]
    return dict(zip(names, Session(model, "cpu").run(given).values(), strict=True))


@dataclass
class Compared:
    """A trained model, what it is fed, the values compared and the module that computes them."""

    model: ir.Model
    given: dict[str, Array]
    names: list[str]
    module: torch.nn.Module

    def run(self) -> tuple[torch.Tensor, ...]:
        found = self.module(*[torch.tensor(self.given[str(value.name)]) for value in self.model.graph.inputs])
        return found if isinstance(found, tuple) else (found,)


@cache
def opened(path: Path) -> Compared:
    model = load(path).ir
    names = [str(value.name) for value in watched(model, path.stem)]
    return Compared(model, feeds(model, path.stem), names, to_module(model, masks="none", outputs=names))


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_round_trip(name: str, shared: Path) -> None:
    it = opened(shared / "models" / f"{name}.onnx")
    reader = it.model.clone()
    by_name = {value.name: value for value in _values(reader)}
    reader.graph.outputs[:] = [by_name[n] for n in it.names]
    for result, right in zip(it.run(), Session(reader, "cpu").run(it.given).values(), strict=True):
        error = np.abs(result.detach().numpy() - right).max()
        assert error <= FORWARD.get(name, 1e-5) * np.abs(right).max()
    assert dict(it.module.named_parameters()).keys() <= parameters(it.model).keys()
    before = ir.to_proto(it.model).SerializeToString(deterministic=True)
    assert ir.to_proto(from_module(it.module, it.model)).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SECONDS else []) for n in DIFFERENTIABLE]
)
def test_gradient_is_that_of_the_onnx_gradient_graph(name: str, shared: Path) -> None:
    it = opened(shared / "models" / f"{name}.onnx")
    weights, results = dict(it.module.named_parameters()), it.run()
    rng = np.random.default_rng(0)
    seeds = {f"seed{n}": rng.standard_normal(y.shape).astype(np.float32) for n, y in enumerate(results)}
    given = [torch.tensor(seed) for seed in seeds.values()]
    grads = torch.autograd.grad(results, list(weights.values()), given)

    twin = it.model.clone()
    by_name = {value.name: value for value in _values(twin)}
    right = gradients(twin, [by_name[n] for n in it.names], list(weights), it.given | seeds)
    pairs = [(g, torch.tensor(right[n])) for n, g in zip(weights, grads, strict=True)]
    wrong = sum(float((found - want).square().sum()) for found, want in pairs)
    allowed = CLIPPED if name.startswith("mobilenet") else BACKWARD
    assert wrong**0.5 <= allowed * sum(float(want.square().sum()) for _, want in pairs) ** 0.5


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
