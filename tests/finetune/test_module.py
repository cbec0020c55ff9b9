"""A graph as a module: names, ties, types, what is refused, and the way back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from tiny import TWINS, samples, twin_model
from units.nets import parsed, run

from onnxprune.errors import ModelError
from onnxprune.finetune import from_module, to_module
from onnxprune.model import Model, load

each_twin = pytest.mark.parametrize("name", TWINS)


def written(model: ir.Model | Model) -> bytes:
    proto = ir.to_proto(model.ir if isinstance(model, Model) else model)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def linear(**weights: Any) -> ir.Model:
    """X [n, 3] times each of the weights in turn, whatever their names are."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[n,3] x) => (float[n,3] y) {}'
    )
    graph, last = proto.graph, "x"
    for number, (name, array) in enumerate(weights.items()):
        out = "y" if number == len(weights) - 1 else f"h{number}"
        graph.node.append(onnx.helper.make_node("MatMul", [last, name], [out], name=f"n{number}"))
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, np.float32), name))
        last = out
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@each_twin
def test_the_same_numbers_as_onnxruntime(name: str) -> None:
    model = twin_model(name)
    x = samples(TWINS[name].shape, 5)
    want = run(model, {"x": x})["y"]
    found = to_module(model)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * np.abs(want).max())  # float32 sums, reordered


@each_twin
def test_a_round_trip_gives_the_same_file(name: str) -> None:
    model = twin_model(name)
    model.metadata_props["author"] = "somebody"
    assert written(from_module(to_module(model), model)) == written(model)


def test_a_round_trip_keeps_negative_zeros() -> None:
    """A pruned −0 came back as +0, and the file was another one."""
    model = linear(w=[[-0.0, 1, 2], [3, 4, 5], [6, 7, 8]])
    assert written(from_module(to_module(model), model)) == written(model)


def test_weights_go_back_and_nothing_else_changes() -> None:
    model = twin_model("cnn")
    before, module = written(model), to_module(model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    tuned = from_module(module, model)
    assert written(model) == before
    for name, value in model.graph.initializers.items():
        array = tuned.graph.initializers[name].const_value.numpy()
        np.testing.assert_array_equal(array, value.const_value.numpy() + 1)
        tuned.graph.initializers[name].const_value = value.const_value
    assert written(tuned) == before


def test_a_file_and_what_was_loaded_of_it_are_taken_alike(lenet_300_100: Path) -> None:
    model = load(lenet_300_100)
    one, other = to_module(lenet_300_100), to_module(model)
    assert one.state_dict().keys() == other.state_dict().keys()
    tuned = from_module(one, model)
    assert isinstance(tuned, Model) and tuned.sha256 == model.sha256


# -- names

NAMES = [
    "w",
    "layer1.0.conv.weight",
    "block/conv 1/Conv2D:0",
    "onnx::MatMul_12",
    "7",
    "7.7",
    "class",  # Python's
    "training",  # the module's own
    "graph",
    "model.type.weight",  # a method of every module
    "a",
    "a.b",  # below a parameter
    ".w",
    "w..x",
    'quote"d',
    "back\\slash",
    "brace{d}",
    "größe",
    "_parameters",
    "x",  # as the input is called
]


def matrix(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(3, 3)).astype(np.float32)


def test_parameters_have_exactly_the_names_of_the_initializers() -> None:
    names = [name for name in NAMES if name != "x"]
    model = linear(**{name: matrix(n) for n, name in enumerate(names)})
    module = to_module(model)
    assert sorted(name for name, _ in module.named_parameters()) == sorted(names)
    x = matrix(99)
    np.testing.assert_allclose(
        module(torch.from_numpy(x)).detach().numpy(), run(model, {"x": x})["y"], rtol=1e-4
    )
    twin = copy.deepcopy(module)
    assert torch.equal(twin(torch.from_numpy(x)), module(torch.from_numpy(x)))
    assert sorted(name for name, _ in twin.named_parameters()) == sorted(names)
    module.load_state_dict(twin.state_dict())  # strict


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_parameter_of_any_name_is_trained(name: str) -> None:
    module = to_module(linear(**{name: matrix(0)}))
    module(torch.ones(2, 3)).sum().backward()
    (found,) = module.named_parameters()
    assert found[0] == name and found[1].grad is not None
    assert torch.equal(found[1].grad, torch.full((3, 3), 2.0))


def test_inputs_whose_names_python_cannot_spell() -> None:
    """A colon in the name of an input came out in the code of the module."""
    text = "g (float[n] a, float[n] b) => (float[n] y) { y = Sub(a, b) }"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
    proto.graph.input[0].name, proto.graph.input[1].name = names = "in:0", "in_0"
    proto.graph.node[0].input[:] = names
    assert float(to_module(ir.from_proto(proto))(torch.tensor([3.0]), torch.tensor([1.0]))) == 2


# -- what is a parameter


def test_weights_are_parameters_and_constants_buffers() -> None:
    model = parsed(
        """net (float[n,4] x) => (float[n,2] y) {
            h = Gemm(x, w, b)
            s = Mul(h, scale)
            e = Add(s, epsilon)
            c = Clip(e, low, high)
            f = Gather<axis=1>(c, order)
            y = Add(f, shift)
        }""",
        {"w": (4, 2), "b": (2,), "scale": (2,), "shift": (1, 2)},
        epsilon=np.float32(1e-5),
        low=np.float32(0),
        high=np.float32(6),
        order=np.array([1, 0]),
    )
    module = to_module(model)
    assert set(dict(module.named_parameters())) == {"w", "b", "scale", "shift"}
    assert set(dict(module.named_buffers())) == {"epsilon", "order"}  # the bounds are numbers in the code


def test_a_weight_that_several_nodes_read_is_one_parameter() -> None:
    model = parsed(
        "net (float[n,3] x) => (float[n,3] y) { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }",
        {"w": (3, 3)},
    )
    module = to_module(model)
    ((name, weight),) = module.named_parameters()
    x = torch.from_numpy(samples((3,), 4))
    module(x).sum().backward()
    twice = weight.detach().clone().requires_grad_()
    (torch.relu(x @ twice) @ twice).sum().backward()
    assert torch.allclose(weight.grad, twice.grad)
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    tuned = from_module(module, model)
    assert list(tuned.graph.initializers) == [name]
    want = run(tuned, {"x": x.numpy()})["y"]
    np.testing.assert_allclose(module(x).detach().numpy(), want, rtol=1e-5, atol=1e-5)


# -- types


@each_twin
def test_float64_is_float64_throughout(name: str) -> None:
    twin, model = TWINS[name], twin_model(name)
    x = torch.from_numpy(samples(twin.shape, 5)).double()
    found = to_module(model).double()(x)
    from tiny import Seen

    weights = {
        key: torch.tensor(value.const_value.numpy(), dtype=torch.float64, requires_grad=True)
        for key, value in model.graph.initializers.items()
    }
    want = twin.forward(Seen(), x, weights)
    assert found.dtype == torch.float64
    # float64 sums, but for one attribute: LayerNorm's epsilon, 1e-5 in float32
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)


def test_a_cast_to_the_weights_own_type_follows_the_module() -> None:
    """A Cast from bytes to float32 stayed one in a module made double, whose MatMul then refused."""
    model = parsed(
        "net (int32[n,3] x) => (float[n,2] y) { f = Cast<to=1>(x)  y = MatMul(f, w) }", {"w": (3, 2)}
    )
    module = to_module(model).double()
    assert module(torch.ones(1, 3, dtype=torch.int32)).dtype == torch.float64


@each_twin
def test_autocast(name: str) -> None:
    """bfloat16 has 8 bits: a few per cent over a handful of layers."""
    module = to_module(twin_model(name))
    x = torch.from_numpy(samples(TWINS[name].shape, 5))
    want = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x)
        found.float().square().sum().backward()
    assert torch.dist(found.float(), want) < 0.05 * want.norm()
    assert all(parameter.grad.dtype == torch.float32 for parameter in module.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "double"])
def test_weights_keep_the_type_of_the_file(dtype: str) -> None:
    text = f"net ({dtype}[n,3] x) => ({dtype}[n,3] y) {{ y = MatMul(x, w) }}"
    model = parsed(text)
    kind = ir.DataType[{"float16": "FLOAT16", "bfloat16": "BFLOAT16", "double": "DOUBLE"}[dtype]]
    array = matrix(0).astype(kind.numpy())
    tensor = ir.tensor(array, dtype=kind, name="w")
    weight = ir.Value(name="w", type=ir.TensorType(kind), shape=ir.Shape((3, 3)), const_value=tensor)
    model.graph.register_initializer(weight)
    model.graph[0].replace_input_with(1, weight)
    module = to_module(model).float()
    with torch.no_grad():
        next(module.parameters()).mul_(2)
    back = from_module(module, model).graph.initializers["w"].const_value
    assert back.dtype == kind
    np.testing.assert_array_equal(back.numpy().astype(np.float64), 2 * array.astype(np.float64))


@pytest.mark.cuda
def test_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    for name in TWINS:
        module, x = to_module(twin_model(name)), torch.from_numpy(samples(TWINS[name].shape, 5))
        want = module(x)
        torch.testing.assert_close(module.cuda()(x.cuda()).cpu(), want, rtol=1e-3, atol=1e-3)  # TF32 is off


# -- outputs, refusals


def test_any_value_can_be_an_output_and_what_it_does_not_need_is_left_out() -> None:
    model = twin_model("mlp")
    module = to_module(model, outputs=["h"])
    assert set(dict(module.named_parameters())) == {"w1", "b1"}
    assert module(torch.ones(2, 7)).shape == (2, 6)
    assert len(to_module(model, outputs=["a", "y"])(torch.ones(2, 7))) == 2
    with pytest.raises(ModelError, match="no value 'z'"):
        to_module(model, outputs=["z"])


def test_what_cannot_be_converted_is_said_in_one_sentence_with_every_op() -> None:
    model = parsed("net (float[n,4] x) => (float[n,4] y) { y = Identity(x) }")
    graph = model.graph
    for number, (domain, op) in enumerate([("", "Unique"), ("com.own", "Magic"), ("", "Unique")]):
        node = ir.node(op, [graph.inputs[0]], domain=domain, name=f"odd{number}")
        node.outputs[0].name = f"z{number}"
        graph.append(node)
        graph.outputs.append(node.outputs[0])
    with pytest.raises(ModelError) as refusal:
        to_module(model)
    message = str(refusal.value)
    assert "Unique (node 'odd0' and 1 more), com.own.Magic (node 'odd1')" in message
    assert "\n" not in message


def test_constants_of_a_type_torch_has_not_are_refused() -> None:
    model = parsed(
        "net (float[n,4] x) => (float[n,4] y) { f = Cast<to=1>(q)  y = Add(x, f) }", q=np.int8([1])
    )
    tensor = ir.tensor(
        np.zeros(4, ir.DataType.FLOAT8E4M3FN.numpy()), dtype=ir.DataType.FLOAT8E4M3FN, name="q"
    )
    model.graph.initializers["q"].const_value = tensor
    with pytest.raises(ModelError, match="Cast of FLOAT8E4M3FN"):
        to_module(model)


def test_training_mode_is_refused() -> None:
    text = "net (float[n,4] x) => (float[n,4] y) { y = Dropout(x, r, t) }"
    with pytest.raises(ModelError, match="Dropout in training mode"):
        to_module(parsed(text, r=np.float32(0.5), t=np.array(True)))
    text = """net (float[n,4] x) => (float[n,4] y) {
        y, mean, variance = BatchNormalization<training_mode=1>(x, s, s, s, s)
    }"""
    with pytest.raises(ModelError, match="BatchNormalization in training mode"):
        to_module(parsed(text, s=np.ones(4, np.float32)))


def test_weights_of_another_model_are_refused() -> None:
    module = to_module(linear(w=matrix(0)))
    with pytest.raises(ModelError, match=r"'w'.*has no such weight"):
        from_module(module, linear(v=matrix(0)))
    with pytest.raises(ModelError, match=r"'w' \[3, 3\].*has it as \[3, 1\]"):
        from_module(module, linear(w=np.ones((3, 1))))
