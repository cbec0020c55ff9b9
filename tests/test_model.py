"""Loading: files that are no models, files of many parts, every model at hand held against its original."""

import os
import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.errors import ModelError
from onnxprune.model import load, parameter_count, parameters
from onnxprune.normalise.names import UniqueNodeNames
from onnxprune.session import Session

MODELS = [
    "basic_pitch_nmp",
    "ch_PP-OCRv4_det_infer",
    "ch_PP-OCRv4_rec_infer",
    "ch_ppocr_mobile_v2.0_cls_infer",
    "efficientnet_lite0_224_bn",
    "magika_standard_v3_3",
    "mobilenetv1_025_128",
    "resnet20_cifar10",
    "resnet20_cifar10_bn",
    "silero_vad_16k_op15",
    "silero_vad_op18_ifless",
    "vgglike_cifar10",
]
# Sizes of the dynamic axes, by input name and model prefix: two samples, small images.
SIZES = {
    ("x", "ch_PP-OCRv4_det"): (1, 3, 64, 96),
    ("x", "ch_PP-OCRv4_rec"): (2, 3, 48, 96),
    ("x", "ch_ppocr_mobile"): (2, 3, 48, 96),
    ("input", "silero"): (2, 512),
}
# Weights after folding are rounded once more (2⁻²⁴ relative); over 60 layers and outputs up to 20 that stays
# far below 1e-4. Models in which nothing folds must agree to the bit.
TOLERANCE = 1e-4
UNTOUCHED = ("basic_pitch", "mobilenetv1", "resnet20_cifar10.", "silero")
BATCH_NORMALIZATION_BEFORE = {
    "resnet20_cifar10_bn": 19,
    "efficientnet_lite0_224_bn": 49,
    "vgglike_cifar10": 6,
    "ch_ppocr_mobile_v2.0_cls_infer": 35,
    "ch_PP-OCRv4_rec_infer": 6,
    "ch_PP-OCRv4_det_infer": 3,
}


def feeds_for(name, path):
    rng = np.random.default_rng(0)
    feeds = {}
    for value in onnx.load(path).graph.input:
        sizes = next((s for (n, p), s in SIZES.items() if n == value.name and name.startswith(p)), None)
        if sizes is None:
            sizes = tuple(axis.dim_value or 2 for axis in value.type.tensor_type.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = (
            np.array(16_000) if value.name == "sr"
            else rng.standard_normal(sizes).astype(dtype) if dtype.kind == "f"
            else rng.integers(0, 256, sizes).astype(dtype)
        )  # fmt: skip
    return feeds


@pytest.mark.parametrize("name", MODELS)
def test_normal_form_computes_what_the_file_does(shared, name):
    path = shared / "models" / f"{name}.onnx"
    model, feeds = load(path), feeds_for(name, path)
    want = Session(path, "cpu", optimise=False).run(feeds)
    got = Session(model.ir, "cpu", optimise=False).run(feeds)
    assert list(got) == list(want)
    tolerance = 0 if f"{name}.".startswith(UNTOUCHED) else TOLERANCE
    for output in want:
        np.testing.assert_allclose(got[output], want[output], rtol=0, atol=tolerance, err_msg=output)

    ops = [node.op_type for node in model.graph]
    assert "Constant" not in ops and "BatchNormalization" not in ops
    assert model.graph.opset_imports[""] >= 18
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names) and all(names)
    unknown = [node for node in model.graph if node.op_type != "If" for v in node.outputs if v.shape is None]
    assert not unknown or name == "silero_vad_16k_op15"  # its Ifs yield different ranks

    again = load(model.ir)
    assert ir.to_proto(again.ir).SerializeToString(deterministic=True) == ir.to_proto(
        model.ir
    ).SerializeToString(deterministic=True), "normalising twice is normalising once"


@pytest.mark.parametrize(("name", "count"), BATCH_NORMALIZATION_BEFORE.items())
def test_every_batch_normalization_at_hand_was_there_to_be_folded(shared, name, count):
    before = onnx.load(shared / "models" / f"{name}.onnx")
    assert sum(node.op_type == "BatchNormalization" for node in before.graph.node) == count


def test_clutter_is_gone(shared):
    ops = {node.op_type for node in load(shared / "models" / "resnet20_cifar10_bn.onnx").graph}
    assert ops == {"Conv", "Relu", "Add", "Slice", "Pad", "ReduceMean", "Gemm"}


def test_weights_captured_by_subgraphs_survive(shared):
    path = shared / "models" / "silero_vad_16k_op15.onnx"
    captured = {tensor.name for tensor in onnx.load(path).graph.initializer if "rnn" in tensor.name}
    assert captured and captured <= set(parameters(load(path)))


# small models


def matmul(rows=4, columns=3):
    float_ = onnx.TensorProto.FLOAT
    weight = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "g",
        [onnx.helper.make_tensor_value_info("x", float_, ["n", rows])],
        [onnx.helper.make_tensor_value_info("y", float_, ["n", columns])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


def refused(source):
    with pytest.raises(ModelError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_sources_agree(tmp_path):
    proto = matmul()
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    models = [load(path), load(str(path)), load(proto), load(ir.from_proto(proto))]
    assert {tuple(parameters(model)) for model in models} == {("w",)}
    assert len({model.sha256 for model in models[:3]}) == 1  # onnx_ir writes the same model in other bytes
    assert models[0].bytes == path.stat().st_size
    assert models[0].path == path and models[2].path is None
    assert parameter_count(models[0]) == 12


def test_a_message_or_graph_given_is_left_as_it_is():
    proto = matmul()
    proto.graph.node[0].name = ""
    before = proto.SerializeToString(deterministic=True)
    load(proto)
    assert proto.SerializeToString(deterministic=True) == before
    graph = ir.from_proto(proto)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    load(graph)
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before


def test_a_copy_can_be_changed_alone():
    model = load(matmul())
    copy = model.copy()
    copy.graph.initializers["w"].const_value = ir.tensor(np.zeros((4, 3), np.float32))
    copy.graph[0].name = "other"
    assert model.graph.initializers["w"].const_value.numpy().any()
    assert model.graph[0].name == "matmul"
    assert copy.sha256 == model.sha256


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"hello, this is no model", "not"), (matmul().SerializeToString()[:-40], "cut off")],
)
def test_files_that_are_no_models(tmp_path, content, says):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(f"{path}: ") and says in message


def test_a_folder_and_a_missing_file(tmp_path):
    assert "is a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "absent.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(matmul().SerializeToString())
    path.chmod(0)
    assert "permission" in refused(path)


def test_names_that_are_no_text(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(matmul().SerializeToString().replace(b"matmul", b"mat\x80ul"))
    assert "has a 'name' that is no text in UTF-8" in refused(path)


def test_a_shape_that_the_data_do_not_fill():
    proto = matmul()
    proto.graph.initializer[0].dims[0] = 2**40
    assert "'w' of shape [1099511627776, 3] needs" in refused(proto)


def test_ten_thousand_nodes_without_a_name_are_numbered_in_one_go():
    nodes = "".join(f"v{i + 1} = Relu(v{i})\n" for i in range(10_000))
    graph = f"g (float[n] v0) => (float[n] v10000) {{ {nodes} }}"
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {graph}'))
    start = time.process_time()
    UniqueNodeNames()(model)
    # 0.05 s, against 7 s where every number is tried from 1 on; the bound is for slow machines
    assert time.process_time() - start < 2
    assert [node.name for node in model.graph][::9999] == ["Relu_1", "Relu_10000"]


def test_shapes_that_contradict_each_other():
    """Onnx's checker lets them pass, and what reads them later failed far from the cause."""
    proto = matmul(rows=4)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    message = refused(proto)
    assert "is not a valid ONNX model" in message and "MatMul" in message


MISFITS = {
    "y = Conv<group=2>(x, w)": ("float[n,3,8,8] x", (4, 2, 3, 3), "3 channels meet a weight for 4"),
    "y = Conv<group=0>(x, w)": ("float[n,3,8,8] x", (4, 3, 3, 3), "there cannot be 0 groups"),
    "y = Conv<group=3>(x, w)": ("float[n,3,8,8] x", (4, 1, 3, 3), "4 channels are no 3 groups"),
    "y = Conv(x, w)": ("float[n,3,8,8] x", (4, 5, 3, 3), "3 channels meet a weight for 5"),
    "y = Conv(x, w, w)": ("float[n,3,8,8] x", (4, 3, 3, 3), "the bias is not one of 4 channels"),
    "y = ConvTranspose(x, w)": ("float[n,3,8,8] x", (4, 5, 3, 3), "3 channels meet a weight for 4"),
    "y = Gemm(x, w)": ("float[n,3] x", (4, 5), "3 features meet a weight for 4"),
    "y = Gemm<transB=1>(x, w)": ("float[n,4] x", (4, 5), "4 features meet a weight for 5"),
}


@pytest.mark.parametrize("body", MISFITS)
def test_operands_that_cannot_be_multiplied(body):
    given, shape, words = MISFITS[body]
    rank = 4 if "Conv" in body else 2
    text = f"g ({given}) => (float[{','.join('abcd'[:rank])}] y) {{ {body} }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), "w"))
    message = refused(proto)
    assert "is not a valid ONNX model" in message
    assert words in message or "Dimension mismatch" in message  # newer onnx compares some itself


def test_invalid_graphs():
    twice = matmul()
    twice.graph.node.append(twice.graph.node[0])
    assert "export it again, with another name for it" in refused(twice)  # not: upgrade onnx
    unknown = matmul()
    unknown.graph.node[0].op_type = "NoSuchOp"
    assert "NoSuchOp" in refused(unknown)
    dangling = matmul()
    dangling.graph.node[0].input[0] = "nowhere"
    assert "nowhere" in refused(dangling)


def test_models_without_inputs_or_outputs():
    no_outputs = matmul()
    del no_outputs.graph.output[:]
    assert "no outputs" in refused(no_outputs)
    no_inputs = matmul()
    no_inputs.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 4), np.float32), "x"))
    del no_inputs.graph.input[:]
    assert "no inputs" in refused(no_inputs)


# external data


@pytest.fixture
def external(tmp_path):
    """Path of a model whose weight lies in `m.data` beside it."""
    path = tmp_path / "m.onnx"
    onnx.save(matmul(64, 32), path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def relocate(path, location):
    proto = onnx.load(path, load_external_data=False)
    next(
        entry for entry in proto.graph.initializer[0].external_data if entry.key == "location"
    ).value = location
    path.write_bytes(proto.SerializeToString())


def test_external_data_is_read_hashed_and_counted(external):
    model = load(external)
    data = external.with_name("m.data")
    np.testing.assert_array_equal(
        parameters(model)["w"].numpy(), np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    )
    assert model.bytes == external.stat().st_size + data.stat().st_size
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert load(external).sha256 != model.sha256


def test_weights_outlive_the_replacement_of_their_file(external):
    model = load(external)
    data = external.with_name("m.data")
    data.with_name("new").write_bytes(b"\0" * data.stat().st_size)
    os.replace(data.with_name("new"), data)
    assert parameters(model)["w"].numpy()[-1, -1] == 64 * 32 - 1


@pytest.mark.parametrize(
    "location", ["../m.data", "/etc/passwd", "sub/../../m.data", "C:\\m.data", "..\\m.data"]
)
def test_external_data_may_not_leave_the_folder(external, location):
    (external.parent.parent / "m.data").write_bytes(external.with_name("m.data").read_bytes())
    relocate(external, location)
    message = refused(external)
    assert "outside the model's folder" in message and "'w'" in message


def test_external_data_behind_a_link_out_of_the_folder(external, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "m.data"
    external.with_name("m.data").rename(elsewhere)
    external.with_name("m.data").symlink_to(elsewhere)
    assert "outside the model's folder" in refused(external)


def test_a_git_lfs_pointer_says_how_the_model_is_fetched(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    assert "git lfs pull" in refused(path)


def test_external_data_missing_or_cut_off(external):
    data = external.with_name("m.data")
    os.truncate(data, data.stat().st_size - 4)
    assert "cut off" in refused(external)
    data.unlink()
    assert "missing" in refused(external)


def test_parameters_reach_into_subgraphs():
    text = """<ir_version: 8, opset_import: ["": 18]>
        g (float[n, 4] x, bool flag) => (float[n, 4] y) <float[4] w = {1, 2, 3, 4}> {
        y = If (flag) <then_branch = t () => (float[n, 4] a) <float[4] v = {1, 2, 3, 4}> { a = Mul (x, v) },
                       else_branch = e () => (float[n, 4] b) { b = Add (x, w) }> }"""
    assert set(parameters(load(onnx.parser.parse_model(text)))) == {"w", "v"}
