"""Cases that are hard by their size alone: minutes, gigabytes."""

import numpy as np
import onnx
import pytest

import onnxprune
from hard_cases.case import SAMPLES
from hard_cases.structure import V16, chain, mlp
from onnxprune.session import Session

ROWS, WIDTH = 4_400_000, 128  # of float32: 2.25 GB


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"ratio": 0.9}, {"units": 0.25}], ids=["weights", "units"])
def test_ten_thousand_nodes(tmp_path, options):
    path = chain(10_000)(tmp_path)
    result = onnxprune.compress(
        path, V16(np.random.default_rng(0)), output=tmp_path / "small.onnx", **options
    )
    assert result.report.nonzero_after < result.report.params_before
    assert len(onnx.load(tmp_path / "small.onnx").graph.node) >= 10_000


@pytest.fixture
def embedding(tmp_path):
    """A table above the limit of protobuf, of which 64 rows are not zero: a file with a hole."""
    path = mlp(
        "e = Gather(table, ids)\n h = MatMul(e, w1)\n g = Add(h, b1)\n a = Relu(g)\n y = MatMul(a, w2)",
        {"w1": (WIDTH, 24), "b1": (24,), "w2": (24, 8)},
        "(int64[n] ids) => (float[n,8] y)",
    )(tmp_path)
    proto = onnx.load(path)
    table = proto.graph.initializer.add(name="table", data_type=1, dims=[ROWS, WIDTH], data_location=1)
    table.external_data.add(key="location", value="table.bin")
    path.write_bytes(proto.SerializeToString())
    with (tmp_path / "table.bin").open("wb") as file:
        file.write(np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float32).tobytes())
        file.truncate(4 * ROWS * WIDTH)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["fp32", "none"])
def test_more_than_two_gigabytes_of_weights(embedding, packing):
    """Seven gigabytes of memory, and of disk."""
    small = embedding.with_name("small.onnx")
    ids = np.random.default_rng(1).integers(0, 64, SAMPLES)
    report = onnxprune.compress(embedding, {"ids": ids}, output=small, units=0.25, pack=packing).report
    assert report.bytes_before > 2**31 and report.params_after < report.params_before
    assert small.with_name("small.onnx.data").exists() == (packing == "none")
    assert (report.bytes_after > 2**31) == (packing == "none")  # packed, the hole takes no bytes
    dense, pruned = (Session(path, "cpu", threads=1).run({"ids": ids})["y"] for path in (embedding, small))
    assert np.linalg.norm(pruned - dense) < 0.5 * np.linalg.norm(dense)  # a quarter of the units went
