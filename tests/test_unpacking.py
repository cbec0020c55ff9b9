"""Packing and unpacking of finished files: what is written computes the same."""

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from click.testing import CliRunner

from onnxprune import CalibrationReader, compress, pack
from onnxprune.cli import main
from onnxprune.errors import ModelError
from onnxprune.unpacking import unpack

LENET = Path(__file__).resolve().parent.parent / "models" / "lenet_300_100.onnx"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "packed.onnx"
    compress(LENET, None, ratio=0.1, recipe="magnitude", output=path, samples=8)
    return path


def weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_weights_are_dense_and_say_the_same(packed: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.onnx"
    report = unpack(packed, plain)
    assert len(report.weights) == 2  # the third is too small to gain by packing
    assert set(report.weights).isdisjoint(weights(packed))
    assert {node.op_type for node in onnx.load(plain).graph.node} == {"Gemm", "Relu"}
    for name in report.weights:
        array = weights(plain)[name]
        assert array.ndim == 2 and 0 < np.count_nonzero(array) < array.size
    assert report.bytes_before == packed.stat().st_size < report.bytes_after == plain.stat().st_size
    x = np.random.default_rng(0).random((4, 784), dtype=np.float32)
    one, other = (onnxruntime.InferenceSession(p).run(None, {"input": x})[0] for p in (packed, plain))
    np.testing.assert_array_equal(one, other)  # onnxruntime folds the packed weight to the same array


def test_names_and_metadata_stay(packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "plain.onnx")
    before, after = onnx.load(packed), onnx.load(tmp_path / "plain.onnx")
    assert [v.name for v in before.graph.input] == [v.name for v in after.graph.input]
    assert [v.name for v in before.graph.output] == [v.name for v in after.graph.output]
    assert {p.key: p.value for p in after.metadata_props} == {p.key: p.value for p in before.metadata_props}


def test_a_plain_model_is_written_as_it_is(tmp_path: Path) -> None:
    assert not unpack(LENET, tmp_path / "same.onnx").weights
    assert weights(tmp_path / "same.onnx").keys() == weights(LENET).keys()


def test_command(packed: Path) -> None:
    result = CliRunner().invoke(main, ["unpack", str(packed)])
    assert result.exit_code == 0, result.output
    assert "2 packed weights made dense" in result.output
    assert packed.with_name("packed.unpacked.onnx").exists()
    in_place = CliRunner().invoke(main, ["unpack", str(packed), "-o", str(packed), "--quiet"])
    assert in_place.exit_code == 0
    assert not unpack(packed, packed).weights


def test_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\x00\x01")
    with pytest.raises(ModelError, match=r"no\.onnx: is not an ONNX"):
        unpack(tmp_path / "no.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


# -- packing what other tools made


@pytest.fixture
def int8(packed: Path, tmp_path: Path) -> Path:
    quantization = pytest.importorskip("onnxruntime.quantization")
    plain, path = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    unpack(packed, plain)
    data = np.random.default_rng(0).random((64, 784), dtype=np.float32)
    quantization.quantize_static(str(plain), str(path), CalibrationReader(plain, data), per_channel=True)
    return path


def test_a_pruned_model_in_int8_was_larger_than_in_floats(packed: Path, int8: Path, tmp_path: Path) -> None:
    """A new user's int8 file had every zero in it, and was half as large again as the packed one."""
    tiny = tmp_path / "tiny.onnx"
    report = pack(int8, tiny)
    assert len(report.weights) == 2 and report.bytes_after == tiny.stat().st_size
    assert tiny.stat().st_size < packed.stat().st_size < int8.stat().st_size == report.bytes_before
    x = np.random.default_rng(1).random((64, 784), dtype=np.float32)
    one, other = (onnxruntime.InferenceSession(p).run(None, {"input": x})[0] for p in (int8, tiny))
    np.testing.assert_array_equal(one, other)  # both are the same int8 graph when they are loaded
    unpack(tiny, tiny)
    before, after = weights(int8), weights(tiny)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name], weight)
        assert after[name].dtype == weight.dtype


def test_what_gets_no_smaller_stays_as_it_is(packed: Path, tmp_path: Path) -> None:
    for name, path in (("dense", LENET), ("packed", packed)):
        assert not pack(path, tmp_path / f"{name}.onnx").weights
        assert weights(tmp_path / f"{name}.onnx").keys() == weights(path).keys()


def test_an_opset_without_the_operators_is_refused(tmp_path: Path) -> None:
    old = onnx.load(LENET)
    old.opset_import[0].version = 10
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match="opset 10 cannot rebuild packed weights, 11 can"):
        pack(tmp_path / "old.onnx", tmp_path / "out.onnx")


def test_the_command_packs(int8: Path) -> None:
    result = CliRunner().invoke(main, ["pack", str(int8)])
    assert result.exit_code == 0, result.output
    assert "2 weights packed" in result.output and int8.with_name("int8.packed.onnx").exists()
