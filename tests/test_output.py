"""The safe writer: a complete, checked file or nothing at all."""

import errno
import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxprune.output
from onnxprune.errors import OutputError
from onnxprune.model import load, parameters
from onnxprune.output import METADATA_KEY, save, save_packed
from onnxprune.passes.pack import pack
from onnxprune.session import Session

X = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)


def proto(scale=1.0):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (float[n, 64] x) => (float[n, 32] y) { h = Relu (x) y = MatMul (h, w) }""")
    weight = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32) * np.float32(scale)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.metadata_props.add(key="labels", value="a,b")
    return model


@pytest.fixture
def model():
    return load(proto()).ir


@pytest.fixture
def expected(model):
    return [({"x": X}, Session(model, "cpu").run({"x": X}))]


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(model, path, **keywords):
    with pytest.raises(OutputError) as caught:
        save(model, path, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_writes_checks_and_counts(model, expected, tmp_path):
    path = tmp_path / "out.onnx"
    size = save(model, path, expected=expected, metadata={METADATA_KEY: json.dumps({"ratio": 0.5})})
    assert entries(tmp_path) == ["out.onnx"]
    assert size == path.stat().st_size
    written = onnx.load(path)
    assert {entry.key: entry.value for entry in written.metadata_props} == {
        "labels": "a,b",
        "onnxprune": json.dumps({"ratio": 0.5}),
    }
    assert not written.graph.value_info
    assert "onnxprune" not in model.metadata_props, "the model given is left as it is"
    assert model.graph[0].outputs[0].shape is not None
    again = load(path)
    np.testing.assert_array_equal(
        parameters(again)["w"].numpy(), model.graph.initializers["w"].const_value.numpy()
    )


def test_the_same_model_is_the_same_bytes(model, tmp_path):
    save(model, tmp_path / "a.onnx", metadata={"onnxprune": "{}"})
    save(model.clone(), tmp_path / "b.onnx", metadata={"onnxprune": "{}"})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_output_may_be_the_input(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(proto().SerializeToString())
    save(load(path).ir, path, metadata={"onnxprune": "{}"})
    assert entries(tmp_path) == ["m.onnx"]
    assert [entry.key for entry in onnx.load(path).metadata_props] == ["labels", "onnxprune"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda outputs: {"y": outputs["y"] + 1},
        lambda outputs: {"y": outputs["y"][:1]},
        lambda outputs: {"y": outputs["y"] * np.float32("nan")},
    ],
)
def test_a_result_that_differs_is_not_written(model, expected, tmp_path, spoil):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")
    ((feeds, outputs),) = expected
    assert "'y'" in refused(model, path, expected=[(feeds, spoil(outputs))])
    assert entries(tmp_path) == ["out.onnx"] and path.read_bytes() == b"precious"


def cancelling(*parts):
    """1×1 convolutions of slices of the channels, summed: weights of ±1e5 that leave next to nothing."""
    rng = np.random.default_rng(0)
    weight = (1e5 * rng.standard_normal((16, 64, 1, 1))).astype(np.float32)
    weight[:, 1::2] = -weight[:, ::2]
    bounds = [0, *parts, 64]
    lines = [f"s{k} = Slice(x, a{k}, b{k}, one)  c{k} = Conv(s{k}, w{k})" for k in range(len(bounds) - 1)]
    total = "c0" if len(bounds) == 2 else ", ".join(f"c{k}" for k in range(len(bounds) - 1))
    text = f"g (float[n,64,7,7] x) => (float[n,16,7,7] y) {{ {' '.join(lines)} y = Sum({total}) }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    for k, (start, end) in enumerate(itertools.pairwise(bounds)):
        arrays = {f"a{k}": np.array([start]), f"b{k}": np.array([end]), f"w{k}": weight[:, start:end]}
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    x = np.repeat(rng.standard_normal((2, 32, 7, 7)), 2, axis=1)
    x[:, 1::2] += 3e-5 * rng.standard_normal((2, 32, 7, 7))
    return load(proto).ir, {"x": x.astype(np.float32)}


def test_a_network_that_amplifies_rounding_is_written_though_sums_come_in_another_order(tmp_path):
    """MobileNetV2 with a third of its MACs cut by weight norm differed by 0.00103, of 0.001 allowed."""
    truth, feeds = cancelling()
    halves, _ = cancelling(31)
    want = Session(truth, "cpu", optimise=False).run(feeds)
    assert "differs by" in refused(halves, tmp_path / "a.onnx", expected=[(feeds, want)])
    save_packed(halves, truth, tmp_path / "b.onnx", feeds, packing="none")
    assert entries(tmp_path) == ["b.onnx"]


def test_another_network_is_refused_however_much_it_amplifies_rounding(tmp_path):
    truth, feeds = cancelling()
    other = truth.clone()
    name = next(name for name in other.graph.initializers if name.startswith("w"))
    weight = other.graph.initializers[name].const_value.numpy().copy()
    weight[0, 0] *= 1.1
    other.graph.initializers[name].const_value = ir.tensor(weight)
    with pytest.raises(OutputError, match="differs by"):
        save_packed(other, truth, tmp_path / "a.onnx", feeds, packing="none")
    assert entries(tmp_path) == []


def test_a_function_may_judge_and_is_asked_with_optimisations_off_and_on(model, tmp_path):
    seen = []

    def judge(session):
        seen.append(session)
        if len(seen) == 2:
            raise OutputError("no good")

    assert refused(model, tmp_path / "out.onnx", expected=judge) == "no good"
    assert len(seen) == 2 and entries(tmp_path) == []


def test_broken_graphs_are_not_written(model, tmp_path):
    # A channel count that onnx.checker alone lets pass: only the full check or onnxruntime sees it.
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((63, 32), np.float32), name="w")
    assert "valid" in refused(model, tmp_path / "out.onnx")
    model.graph[1].op_type = "NoSuchOp"
    assert "NoSuchOp" in refused(model, tmp_path / "out.onnx")
    assert entries(tmp_path) == []


def test_a_graph_that_only_fails_when_it_runs_is_not_written(model, expected, tmp_path):
    x = np.zeros((1, 63), np.float32)
    assert "does not run" in refused(model, tmp_path / "out.onnx", expected=[({"x": x}, {"y": x})])
    assert entries(tmp_path) == []


def test_targets_that_cannot_be(model, tmp_path):
    assert "is a folder" in refused(model, tmp_path)
    assert "does not exist" in refused(model, tmp_path / "absent" / "out.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder(model, tmp_path):
    tmp_path.chmod(0o500)
    assert "ermission" in refused(model, tmp_path / "out.onnx")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_error_of_the_system_leaves_nothing_behind(model, tmp_path, monkeypatch, failing):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(onnxprune.output.os, failing, full)
    assert "No space left" in refused(model, path)
    assert entries(tmp_path) == ["out.onnx"] and path.read_bytes() == b"precious"


def test_a_full_disk(tmp_path):
    """A real short write: the kernel refuses files above a limit in a process of its own."""
    (tmp_path / "in.onnx").write_bytes(proto().SerializeToString())
    code = """
import resource, signal, sys
from onnxprune.errors import OutputError
from onnxprune.model import load
from onnxprune.output import METADATA_KEY, save, save_packed
model = load("in.onnx").ir
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(model, "in.onnx")
except OutputError as error:
    print(error)
"""
    before = (tmp_path / "in.onnx").read_bytes()
    root = Path(onnxprune.output.__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in run.stdout
    assert entries(tmp_path) == ["in.onnx"] and (tmp_path / "in.onnx").read_bytes() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_an_interrupt_leaves_nothing_behind(model, tmp_path):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(model, path, expected=interrupt)
    assert entries(tmp_path) == ["out.onnx"] and path.read_bytes() == b"precious"


# above 2 GB, with the limit lowered


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(onnxprune.output, "_SINGLE_FILE_LIMIT", 4096)


def test_large_models_get_external_data(model, expected, tmp_path, small_limit):
    path = tmp_path / "out.onnx"
    size = save(model, path, expected=expected)
    assert entries(tmp_path) == ["out.onnx", "out.onnx.data"]
    assert size == sum(file.stat().st_size for file in tmp_path.iterdir())
    loaded = load(path)
    assert loaded.bytes == size
    np.testing.assert_array_equal(Session(loaded.ir, "cpu").run({"x": X})["y"], expected[0][1]["y"])


def test_large_output_may_be_the_input(tmp_path, small_limit):
    path = tmp_path / "out.onnx"
    save(load(proto()).ir, path)
    model = load(path).ir
    before = model.graph.initializers["w"].const_value.numpy().copy()
    pack(model)
    save(model, path)
    assert entries(tmp_path) == ["out.onnx", "out.onnx.data"]
    np.testing.assert_array_equal(parameters(load(path))["w"].numpy(), before)


def test_a_failed_large_write_keeps_both_old_files(model, tmp_path, small_limit):
    path = tmp_path / "out.onnx"
    save(model, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = load(proto(scale=2.0)).ir
    refused(other, path, expected=[({"x": X}, {"y": np.zeros((3, 32), np.float32)})])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), KeyboardInterrupt()])
def test_the_last_move_failing_puts_the_old_data_back(model, tmp_path, monkeypatch, small_limit, error):
    path = tmp_path / "out.onnx"
    save(model, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    replace = os.replace

    def stop_at_the_model(source, target):
        if Path(target) == path:
            raise error
        replace(source, target)

    monkeypatch.setattr(onnxprune.output.os, "replace", stop_at_the_model)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        save(load(proto(scale=2.0)).ir, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "name",
    ["silero_vad_16k_op15", "basic_pitch_nmp", "magika_standard_v3_3", "ch_ppocr_mobile_v2.0_cls_infer"],
)
def test_models_at_hand_can_be_written(shared, tmp_path, name):
    assert save(load(shared / "models" / f"{name}.onnx").ir, tmp_path / "out.onnx") > 0


@pytest.mark.slow
def test_every_model_at_hand_can_be_written(shared, tmp_path):
    for source in sorted((shared / "models").glob("*.onnx")):
        assert save(load(source).ir, tmp_path / source.name) > 0
