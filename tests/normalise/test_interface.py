"""Functions, default inputs, names, negative sizes, custom ops."""

import numpy as np
import onnx
import pytest

from onnxprune.model import load


def test_functions_are_inlined(unchanged, ops):
    text = """<ir_version: 8, opset_import: ["": 18, "local": 1]>
        g (float[n, 3] x) => (float[n, 3] y) { h = local.twice (x) y = local.twice (h) }
        <domain: "local", opset_import: ["": 18]>
        twice (a) => (b) { two = Constant <value_float = 2.0> () b = Mul (a, two) }"""
    assert ops(unchanged(onnx.parser.parse_model(text))) == ["Mul", "Mul"]


def test_an_input_with_a_default_is_an_initializer_and_noted(parse, unchanged):
    proto = parse("g (float[n, 4] x, float[4, 2] w) => (float[n, 2] y) { y = MatMul (x, w) }", w=(4, 2))
    model = load(proto)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [note.name for note in model.notes] == ["w"]


def test_before_ir_4_every_initializer_is_an_input_and_nothing_is_noted(parse):
    proto = parse(
        "g (float[n, 4] x, float[4, 2] w) => (float[n, 2] y) { y = MatMul (x, w) }",
        opset=8,
        ir_version=3,
        w=(4, 2),
    )
    model = load(proto)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.notes == []
    assert model.ir.ir_version >= 8


def test_nodes_get_unique_names_and_keep_their_own(parse):
    proto = parse("g (float[n] x) => (float[n] y) { a = Relu (x) b = Relu (a) c = Relu (b) y = Exp (c) }")
    proto.graph.node[1].name = proto.graph.node[2].name = "twin"
    names = [node.name for node in load(proto).graph]
    assert names[1] == "twin"
    assert len(set(names)) == 4 and all(names)


def test_outputs_left_out_stay_left_out(parse, unchanged):
    text = "g (float[2, 3, 4] x) => (float[1, 3, 5] y) { o, y = LSTM <hidden_size = 5> (x, w, r) }"
    proto = parse(text, w=(1, 20, 4), r=(1, 20, 5))
    proto.graph.node[0].output[0] = ""
    model = unchanged(proto)
    assert [value.name for value in model.graph[0].outputs] == ["", "y"]


def test_minus_one_is_an_unknown_axis(parse, unchanged):
    proto = parse("g (float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }")
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    model = unchanged(proto, x=np.ones((2, 4), np.float32))
    assert not isinstance(model.graph.inputs[0].shape[0], int)


def test_symbolic_axes_reach_the_inside(parse, unchanged):
    model = unchanged(parse("g (float[batch, 4] x) => (float[batch, 4] y) { h = Relu (x) y = Exp (h) }"))
    assert [str(axis) for axis in model.graph[0].outputs[0].shape] == ["batch", "4"]


def test_stale_annotations_are_forgotten(parse, unchanged):
    proto = parse("g (float[2, 4] x) => (float[2, 4] y) { h = Relu (x) y = Exp (h) }")
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [7, 7]))
    assert load(proto).graph[0].outputs[0].shape.numpy() == (2, 4)


@pytest.mark.parametrize("opset", [17, 18])
def test_custom_ops_stay_and_are_noted(opset):
    text = f"""<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>
        g (float[n, 4] x) => (float[n, 4] y) {{ h = Relu (x) y = com.microsoft.Gelu (h) }}"""
    model = load(onnx.parser.parse_model(text))
    assert [(node.domain, node.op_type) for node in model.graph] == [("", "Relu"), ("com.microsoft", "Gelu")]
    assert any("com.microsoft.Gelu" in note.reason for note in model.notes)
    assert model.graph.opset_imports["com.microsoft"] == 1
