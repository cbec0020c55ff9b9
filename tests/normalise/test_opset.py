"""Old opsets raised to 18: what was computed before is computed after, names and interface stay."""

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelError
from onnxprune.model import load

# op text, first opset of this form, last opset of it, extra initializers
OLD = [
    ("y = Relu (x)", 7, 17, {}),
    ("y = Softmax <axis = 1> (x)", 7, 12, {}),
    ("y = Softmax <axis = 3> (x)", 7, 12, {}),
    ("y = LogSoftmax <axis = 3> (x)", 7, 12, {}),
    ("y = Clip <min = -0.5, max = 0.5> (x)", 7, 10, {}),
    ("y = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (x)", 7, 10, {}),
    ("y = Slice <axes = [2], starts = [1], ends = [3]> (x)", 7, 9, {}),
    ("y = Unsqueeze <axes = [0]> (x)", 7, 12, {}),
    ("u = Unsqueeze <axes = [0]> (x) y = Squeeze <axes = [0]> (u)", 7, 12, {}),
    ("y, z = Split <axis = 1, split = [1, 2]> (x) d = Add (z, z)", 7, 12, {}),
    ("y = ReduceMean <axes = [2, 3], keepdims = 0> (x)", 7, 17, {}),
    ("y = ReduceSum <axes = [1]> (x)", 7, 12, {}),
    ("y = ReduceMax <axes = [1]> (x)", 7, 17, {}),
    ('y = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (x)', 7, 8, {}),
    ('y = Upsample <mode = "nearest"> (x, s)', 9, 9, {"s": np.array([1, 1, 2, 2], np.float32)}),
    ('y = Upsample <mode = "linear"> (x, s)', 9, 9, {"s": np.array([1, 1, 2, 2], np.float32)}),
    ('y = Resize <mode = "linear"> (x, s)', 10, 10, {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    ('y = Resize <mode = "nearest"> (x, s)', 10, 10, {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    ('y = Resize <mode = "nearest"> (x, s)', 10, 10, {"s": np.array([1, 1, 0.5, 0.6], np.float32)}),
    ("y, z = Split <axis = 2> (x)", 7, 17, {}),
    ("y = Scatter <axis = 1> (x, i, u)", 9, 10, {"i": np.full((2, 2, 2, 2), 1), "u": (2, 2, 2, 2)}),
    ("a = Shape (x) y = Expand (b, a)", 8, 17, {"b": np.float32(3)}),
    ("y = Hardmax <axis = 3> (x)", 7, 12, {}),
    ("y = MaxPool <kernel_shape = [2, 3], strides = [2, 1]> (x)", 7, 17, {}),
    (
        "y = RoiAlign <output_height = 2, output_width = 2> (x, r, i)",
        10,
        15,
        {"r": np.array([[0, 0, 3, 3]], np.float32), "i": np.array([0])},
    ),
    ("y = InstanceNormalization (x, p, p)", 7, 17, {"p": np.array([0.5, 1, 2], np.float32)}),
    ("y = PRelu (x, p)", 7, 15, {"p": np.array([0.5, 1, 2, 3, 4], np.float32)}),
    ("y = BatchNormalization (x, p, p, p, p)", 7, 17, {"p": np.array([0.5, 1, 2], np.float32)}),
    ("y = Dropout (x)", 7, 17, {}),
    ("y = Cast <to = 1> (x)", 9, 17, {}),
    ("y = AveragePool <kernel_shape = [2, 2]> (x)", 7, 17, {}),
    ("f = Flatten <axis = 1> (x) y = Gemm <transB = 1> (f, w, b)", 7, 17, {"w": (2, 60), "b": (2,)}),
    ("y = Conv <pads = [1, 1, 1, 1]> (x, w)", 7, 17, {"w": (256, 3, 3, 3)}),
]


@pytest.mark.parametrize(("body", "first", "last", "weights"), OLD)
def test_raised_models_compute_the_same(parse, unchanged, body, first, last, weights):
    for opset in sorted({first, last}):
        text = f"g (float[n, 3, 4, 5] x) => (float y) {{ {body} }}"
        proto = parse(text, opset=opset, **weights)
        proto.graph.output[0].type.tensor_type.ClearField("shape")  # "float y" reads as a scalar
        model = unchanged(onnx.shape_inference.infer_shapes(proto))
        assert model.opset_before == opset
        assert model.graph.opset_imports[""] == 18


def test_softmax_over_the_last_axis_stays_one_node(parse, unchanged, ops):
    text = "g (float[n, 3, 4] x) => (float[n, 3, 4] y) { y = Softmax <axis = 2> (x) }"
    assert ops(unchanged(parse(text, opset=11))) == ["Softmax"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            'Scan <num_scan_inputs = 1, body = b (float[4] a) => (float[4] c) { c = Relu (a) }> ("", x)',
            "batch axis",
        ),
        ("Hardmax <axis = 1> (x)", "several axes"),
    ],
)
def test_what_the_converter_gets_wrong_is_refused(parse, body, says):
    with pytest.raises(ModelError, match=says):
        load(parse(f"g (float[2, 3, 4] x) => (float[2, 3, 4] y) {{ y = {body} }}", opset=8))


def test_an_opset_nobody_knows_yet_is_refused(parse):
    proto = parse("g (float[n, 3] x) => (float[n, 3] y) { y = Relu (x) }", opset=99, ir_version=10)
    with pytest.raises(ModelError, match=r"opset 99 .* upgrade onnx"):
        load(proto)


def test_newer_opsets_stay(parse, unchanged):
    for opset in (18, 20, 22):
        model = unchanged(parse("g (float[n, 3] x) => (float[n, 3] y) { y = Relu (x) }", opset=opset))
        assert model.graph.opset_imports[""] == opset


def test_the_interface_metadata_and_names_survive(parse):
    text = "agraph (float[batch, 3] x) => (float[batch, 3] y) { h = Relu (x) y = Sigmoid (h) }"
    proto = parse(text, opset=11)
    proto.graph.node[0].name = "first"
    proto.producer_name, proto.producer_version, proto.doc_string = "maker", "1.2", "words"
    proto.graph.doc_string = "graph words"
    proto.metadata_props.add(key="labels", value="a,b")
    model = load(proto).ir
    assert (model.producer_name, model.producer_version, model.doc_string) == ("maker", "1.2", "words")
    assert (model.graph.name, model.graph.doc_string) == ("agraph", "graph words")
    assert model.metadata_props == {"labels": "a,b"}
    assert [str(axis) for axis in model.graph.inputs[0].shape] == ["batch", "3"]
    assert [str(axis) for axis in model.graph.outputs[0].shape] == ["batch", "3"]
    assert model.graph[0].name == "first"
    assert all(node.name for node in model.graph)


def test_control_flow_is_raised_inside(parse, unchanged):
    text = """g (float[3, 4] x, bool flag) => (float[a, b] y) {
        y = If (flag) <
            then_branch = t () => (float[a, b] p) { p = ReduceMean <axes = [1]> (x) },
            else_branch = e () => (float[a, b] q) {
                m = ReduceMax <axes = [1]> (x) q = Clip <min = 0.0> (m) }> }"""
    for flag in (True, False):
        unchanged(parse(text, opset=10), flag=np.array(flag))


def test_what_cannot_be_raised_is_one_clear_sentence(parse):
    proto = parse(
        "g (float[n, 3] x) => (float[n, 3] y) { y = Affine (x) }", opset=9
    )  # experimental, withdrawn
    with pytest.raises(ModelError, match=r"opset 9 cannot be raised to 18: .* export the model") as caught:
        load(proto)
    assert "\n" not in str(caught.value)


def test_long_name_of_the_default_domain(parse, unchanged):
    proto = parse("g (float[n, 3] x) => (float[n, 3] y) { y = Relu (x) }", opset=12)
    proto.opset_import[0].domain = "ai.onnx"
    model = unchanged(proto)
    assert dict(model.graph.opset_imports) == {"": 18}
