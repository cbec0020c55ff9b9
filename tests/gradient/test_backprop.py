"""The driver: sums over uses, sums back over broadcasts, stops, and emits nothing that is not needed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.emit import Emitter
from onnxprune.errors import GradientError
from onnxprune.gradient import Gradients, backpropagate
from onnxprune.session import Session

from .cases import Array

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def tensor(name: str, *shape: int | str | None, type: ir.TensorType = FLOAT) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=type)


class Net:
    """A graph written op by op; shapes and types are what a test says they are."""

    def __init__(self, *inputs: ir.Value) -> None:
        self.graph = ir.Graph(list(inputs), [], nodes=[], opset_imports={"": 18}, name="g")
        self.model = ir.Model(self.graph, ir_version=10)

    def add(
        self, op_type: str, *inputs: ir.Value | None, out: ir.Value, domain: str = "", **kw: object
    ) -> ir.Value:
        self.graph.append(
            ir.node(op_type, inputs, kw, domain=domain, outputs=[out], name=f"{op_type}@{out.name}")
        )
        return out

    def differentiate(self, y: ir.Value, *wanted: ir.Value) -> Gradients:
        seed = ir.Value(name="seed", shape=y.shape, type=y.type)
        self.graph.inputs.append(seed)
        gradients = backpropagate(self.graph, Emitter(self.graph), {y: seed}, wanted)
        op = Emitter(self.graph, "out")
        for value, grad in gradients.of.items():
            output = op.Identity(grad)
            output.name, output.type = f"grad_{value.name}", value.type
            self.graph.outputs.append(output)
        return gradients

    def run(self, **feeds: Array) -> dict[str, Array]:
        return Session(self.model, "cpu").run({k: np.asarray(v, dtype=np.float32) for k, v in feeds.items()})


def test_gradients_of_all_uses_are_added_up() -> None:
    x = tensor("x", 3)
    net = Net(x)
    twice = net.add("Mul", x, x, out=tensor("xx", 3))
    y = net.add("Add", twice, x, out=tensor("y", 3))
    net.differentiate(y, x)
    at = np.array([1.0, -2.0, 3.0])
    assert net.run(x=at, seed=np.ones(3))["grad_x"] == pytest.approx(2 * at + 1)


def test_a_value_may_be_wanted_and_pass_the_gradient_on() -> None:
    x = tensor("x", 2)
    net = Net(x)
    middle = net.add("Neg", x, out=tensor("m", 2))
    y = net.add("Exp", middle, out=tensor("y", 2))
    assert set(net.differentiate(y, x, middle, y).of) == {x, middle, y}
    found = net.run(x=np.zeros(2), seed=np.array([3.0, 4.0]))
    assert found["grad_m"] == pytest.approx([3, 4])
    assert found["grad_x"] == pytest.approx([-3, -4])
    assert found["grad_y"] == pytest.approx([3, 4])


SHAPES = [
    (("n", 3), (1, 3), (4, 3), (1, 3)),
    (("n", 3), ("m", 3), (4, 3), (1, 3)),  # only run time tells that m is 1
    (("n", 3), ("m", 3), (4, 3), (4, 3)),
    (("n", "c", "h"), ("d",), (2, 3, 4), (4,)),
    (("n", "c", "h"), ("d", "e"), (2, 3, 4), (3, 1)),
    ((None, None), (None, None), (1, 3), (2, 1)),
    ((2, 3), (), (2, 3), ()),
    ((2, 3, 4), (3, 1), (2, 3, 4), (3, 1)),
    (("n", 3), ("n", 1), (5, 3), (5, 1)),
]


@pytest.mark.parametrize(("declared_a", "declared_b", "a", "b"), SHAPES)
def test_a_broadcast_operand_is_summed_back(
    declared_a: tuple[int, ...], declared_b: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    left, right = tensor("a", *declared_a), tensor("b", *declared_b)
    net = Net(left, right)
    n = max(len(declared_a), len(declared_b))
    # what shape inference says: the named size where both agree or the other is 1, otherwise nothing
    aligned = zip(
        (1,) * (n - len(declared_a)) + declared_a, (1,) * (n - len(declared_b)) + declared_b, strict=True
    )
    joined = [p if q in (1, p) else q if p == 1 else None for p, q in aligned]
    y = net.add("Mul", left, right, out=tensor("y", *joined))
    net.differentiate(y, left, right)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=a), rng.normal(size=b)
    g = rng.normal(size=np.broadcast_shapes(a, b))
    found = net.run(a=x, b=w, seed=g)
    assert found["grad_a"].shape == a
    assert found["grad_b"].shape == b
    # ⟨g, x·w⟩ is linear in each operand: gradient times operand gives it back; float32 sums of 24 terms
    for name, operand in (("a", x), ("b", w)):
        assert np.sum(found[f"grad_{name}"] * operand) == pytest.approx(np.sum(g * x * w), rel=1e-5)
    for index in np.ndindex(b):
        unit = np.zeros(b)
        unit[index] = 1
        assert found["grad_b"][index] == pytest.approx(np.sum(g * x * unit), rel=1e-5, abs=1e-6)


def test_known_sizes_need_no_run_time_shapes() -> None:
    left, right = tensor("a", "n", 3, 4), tensor("b", 3, 1)
    net = Net(left, right)
    y = net.add("Add", left, right, out=tensor("y", "n", 3, 4))
    net.differentiate(y, left, right)
    assert {node.op_type for node in net.graph} == {"Add", "ReduceSum", "Identity"}


def test_an_unknown_op_is_named() -> None:
    x = tensor("x", 2)
    net = Net(x)
    y = net.add("Foo", x, out=tensor("y", 2), domain="com.example")
    gradients = net.differentiate(y, x)
    assert gradients.blocked == {x: ["com.example.Foo node 'Foo@y'"]}
    with pytest.raises(GradientError, match=r"x.*com\.example\.Foo node 'Foo@y'"):
        gradients.require()


def test_a_form_without_a_rule_says_which() -> None:
    x, ratio = tensor("x", 2), tensor("r")
    training = tensor("t", type=ir.TensorType(ir.DataType.BOOL))
    net = Net(x, ratio, training)
    y = net.add("Dropout", x, ratio, training, out=tensor("y", 2))
    assert net.differentiate(y, x).blocked == {x: ["Dropout node 'Dropout@y' (training mode)"]}


def test_a_partial_gradient_is_no_gradient() -> None:
    x, z = tensor("x", 2), tensor("z", 2)
    net = Net(x, z)
    stopped = net.add("Foo", x, out=tensor("s", 2))
    y = net.add("Sum", stopped, x, z, out=tensor("y", 2))
    gradients = net.differentiate(y, x, z)
    assert gradients.blocked == {x: ["Foo node 'Foo@s'"]}
    assert set(gradients.of) == {z}
    gradients.require()  # one of two is reached: no error


def test_every_op_that_stops_is_named_once() -> None:
    x = tensor("x", 2)
    net = Net(x)
    first = net.add("Foo", x, out=tensor("f", 2))
    second = net.add("Bar", first, out=tensor("b", 2))
    y = net.add("Add", second, net.add("Baz", x, out=tensor("z", 2)), out=tensor("y", 2))
    # Foo lies behind Bar: Bar is what stops the path, and without it Foo would
    assert net.differentiate(y, x).blocked == {x: ["Bar node 'Bar@b'", "Baz node 'Baz@z'"]}


def test_ops_without_a_gradient_stop_a_path_harmlessly() -> None:
    x = tensor("x", 2)
    net = Net(x)
    sign = net.add("Sign", x, out=tensor("s", 2))
    shape = net.add("Shape", x, out=tensor("n", 1, type=ir.TensorType(ir.DataType.INT64)))
    width = net.add("Cast", shape, out=tensor("w", 1), to=1)
    y = net.add("Mul", net.add("Mul", x, sign, out=tensor("a", 2)), width, out=tensor("y", 2))
    gradients = net.differentiate(y, x)
    assert not gradients.blocked
    found = net.run(x=np.array([-3.0, 5.0]), seed=np.ones(2))["grad_x"]
    assert found == pytest.approx([-2.0, 2.0])  # sign(x) · 2, the sign held fixed


def test_no_path_is_said() -> None:
    x, z = tensor("x", 2), tensor("z", 2)
    net = Net(x, z)
    y = net.add("Exp", z, out=tensor("y", 2))
    net.add("Exp", x, out=tensor("aside", 2))
    gradients = net.differentiate(y, x)
    assert gradients.blocked == {x: ["no path to an output that the loss depends on"]}
    with pytest.raises(GradientError, match="no path"):
        gradients.require()


def test_what_an_if_captures_is_blocked_by_it() -> None:
    x, condition = tensor("x", 2), tensor("c", type=ir.TensorType(ir.DataType.BOOL))
    net = Net(x, condition)
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner = ir.node("Exp", [x], outputs=[tensor(f"{name}:y", 2)], name=name)
        branches[name] = ir.AttrGraph(name, ir.Graph([], inner.outputs, nodes=[inner], name=name))
    y = net.add("If", condition, out=tensor("y", 2), **branches)
    assert net.differentiate(y, x).blocked == {x: ["If node 'If@y'"]}


def test_only_what_is_wanted_is_emitted() -> None:
    image, weight = tensor("x", "n", 2, 5, 5), tensor("w", 3, 2, 3, 3)
    net = Net(image, weight)
    inner = net.add("Conv", image, weight, out=tensor("h", "n", 3, 3, 3))
    y = net.add("Relu", inner, out=tensor("y", "n", 3, 3, 3))
    net.differentiate(y, inner)
    assert [node.op_type for node in net.graph].count("Conv") == 1
    assert {node.op_type for node in net.graph} == {"Conv", "Relu", "Greater", "Where", "Identity"}


def test_several_seeds_add_up_even_when_one_lies_behind_the_other() -> None:
    x = tensor("x", 2)
    net = Net(x)
    middle = net.add("Neg", x, out=tensor("m", 2))
    y = net.add("Neg", middle, out=tensor("y", 2))
    one = tensor("one", 2)
    net.graph.inputs.append(one)
    gradients = backpropagate(net.graph, Emitter(net.graph), {y: one, middle: one}, [x])
    net.graph.outputs.append(gradients.of[x])
    (found,) = (
        Session(net.model, "cpu").run({"x": np.zeros(2, np.float32), "one": np.float32([1, 1])}).values()
    )
    assert found == pytest.approx([0.0, 0.0])  # 1 through both, −1 through the nearer
