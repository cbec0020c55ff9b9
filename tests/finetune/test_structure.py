"""Ops with insides: the branches of an If, and recurrent cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from gradient.build import run_onnxruntime

from onnxprune.errors import ModelError
from onnxprune.finetune import from_module, to_module
from onnxprune.model import load, parameters

F = np.float32
BRANCHES = """<ir_version: 10, opset_import: ["": 18]>
    net (float[n,3] x, bool c) => (float[n,3] y, float[n,3] z) {
        h = MatMul(x, shared)
        y, z = If (c) <
            then_branch = one () => (float[n,3] a, float[n,3] b) {
                a = MatMul(h, shared)
                ones = Constant<value_ints = [1]>()
                b = CumSum(a, ones)
            },
            else_branch = other () => (float[n,3] d, float[n,3] h2) { d = Add(h, own)  h2 = Identity(h) }
        >
    }"""


def branching() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(BRANCHES)
    rng = np.random.default_rng(0)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(3, 3)).astype(F), "shared"))
    branch = next(a.g for a in proto.graph.node[1].attribute if a.name == "else_branch")
    branch.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=3).astype(F), "own"))
    return proto


@pytest.mark.parametrize("taken", [True, False])
def test_an_if_takes_its_branch(taken: bool) -> None:
    proto = branching()
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(F)
    want = run_onnxruntime(proto, {"x": x, "c": np.array(taken)})
    found = to_module(proto)(torch.from_numpy(x), torch.tensor(taken))
    for result, right in zip(found, want.values(), strict=True):
        np.testing.assert_allclose(result.detach().numpy(), right, rtol=1e-5, atol=1e-6)


def test_weights_inside_branches_are_trained_under_their_names() -> None:
    model = load(branching())
    module = to_module(model)
    weights = dict(module.named_parameters())
    assert weights.keys() == parameters(model).keys() == {"shared", "own"}
    module(torch.ones(1, 3), torch.tensor(False))[0].sum().backward()
    assert torch.equal(weights["own"].grad, torch.ones(3))
    with torch.no_grad():
        weights["own"].add_(1)
    tuned = from_module(module, model)
    before, after = (parameters(one)["own"].numpy() for one in (model, tuned))
    np.testing.assert_array_equal(after, before + 1)


def test_what_is_refused_in_a_branch_is_named() -> None:
    proto = branching()
    branch = next(a.g for a in proto.graph.node[1].attribute if a.name == "else_branch")
    branch.node[1].op_type, branch.node[1].name = "Unique", "inner"
    with pytest.raises(ModelError, match=r"Unique \(node 'inner'\)"):
        to_module(ir.from_proto(proto))


# -- recurrent cells: time 5, batch 2, in 3, hidden 4

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def cell(
    op: str, direction: str, *, bias: bool, state: bool, **attributes: Any
) -> tuple[onnx.ModelProto, Any]:
    rng, ways, gates = np.random.default_rng(2), 2 if direction == "bidirectional" else 1, GATES[op]
    states = ["h", "c"] if op == "LSTM" else ["h"]
    arrays = {"w": rng.normal(size=(ways, 4 * gates, 3)), "r": rng.normal(size=(ways, 4 * gates, 4))}
    arrays |= {"b": rng.normal(size=(ways, 8 * gates))} if bias else {}
    arrays |= {name: rng.normal(size=(ways, 2, 4)) for name in states} if state else {}
    inputs = ["x", "w", "r", "b" if bias else "", "", *(states if state else [])]
    outputs = ["y", *(f"last_{name}" for name in states)]
    node = onnx.helper.make_node(op, inputs, outputs, "n", hidden_size=4, direction=direction, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [5, 2, 3])],
        [onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [onnx.numpy_helper.from_array(array.astype(F), name) for name, array in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return model, rng.normal(size=(5, 2, 3)).astype(F)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("bias, state", [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize(
    ("op", "attributes"), [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]
)
def test_recurrent_cells(
    op: str, attributes: dict[str, Any], direction: str, bias: bool, state: bool
) -> None:
    model, x = cell(op, direction, bias=bias, state=state, **attributes)
    module = to_module(ir.from_proto(model))
    results = module(torch.from_numpy(x))
    for result, right in zip(results, run_onnxruntime(model, {"x": x}).values(), strict=True):
        np.testing.assert_allclose(result.detach().numpy(), right, rtol=1e-5, atol=1e-5)
    results[0].sum().backward()
    assert dict(module.named_parameters()).keys() == {"w", "r"} | ({"b"} if bias else set())
    assert all(parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"activations": ["Relu"]}, "other activations"),
        ({"clip": 1.0}, "clip"),
        ({"layout": 1}, "batch in front"),
    ],
)
def test_cells_of_another_form_are_refused(attributes: dict[str, Any], word: str) -> None:
    model, _ = cell("RNN", "forward", bias=True, state=False, **attributes)
    with pytest.raises(ModelError, match=word):
        to_module(ir.from_proto(model))
