"""A file above the limit of protobuf, out of one that is."""

import numpy as np
import pytest

import onnxprune
from hard_cases.case import SAMPLES
from hard_cases.structure import two_gigabytes
from onnxprune.session import Session


@pytest.mark.slow
def test_more_than_two_gigabytes_are_written_beside_the_model(tmp_path):
    """Seven gigabytes of memory, five of disk."""
    path, small = two_gigabytes(tmp_path), tmp_path / "small.onnx"
    ids = np.random.default_rng(1).integers(0, 64, SAMPLES)
    report = onnxprune.compress(path, {"ids": ids}, output=small, units=0.25, pack="none").report
    assert min(report.bytes_before, report.bytes_after) > 2**31
    assert report.params_after < report.params_before
    assert small.stat().st_size < 2**20 < (tmp_path / "small.onnx.data").stat().st_size
    dense, pruned = (Session(file, "cpu", threads=1).run({"ids": ids})["y"] for file in (path, small))
    assert np.linalg.norm(pruned - dense) < 0.5 * np.linalg.norm(dense)  # a quarter of the units went
