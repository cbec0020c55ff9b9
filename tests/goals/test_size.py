"""The goal `max_bytes`: the file as written keeps to it, and uses it."""

import numpy as np
import pytest
from goals.nets import data, saved

from onnxprune import compress, compress_to_goal
from onnxprune.errors import BudgetError
from onnxprune.prepared import Prepared


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path)


@pytest.mark.parametrize(
    "given, allowed",
    [
        ({"recipe": "default"}, 8000),
        ({"recipe": "default", "macs": 0.6}, 6000),
        ({"recipe": "mlprune"}, 6000),
        ({"recipe": "magnitude", "pack": "fp16"}, 5500),
        ({"recipe": "magnitude"}, 18000),
    ],
)
def test_the_file_fits_and_uses_its_bytes(path, tmp_path, given, allowed):
    out = tmp_path / "out.onnx"
    given = {**given, "provider": "cpu"}
    report = compress_to_goal(path, data(64), output=out, max_bytes=allowed, **given).report
    size = out.stat().st_size
    assert 0.95 * allowed <= size <= allowed
    assert report.bytes_after == report.goal.reached == size and report.goal.asked == allowed
    assert report.options["ratio"] == report.goal.value
    compress(path, data(64), ratio=report.goal.value, output=tmp_path / "again", **given)
    assert (tmp_path / "again").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("search", ["units", "macs"])
def test_units_fit_and_one_more_would_not(path, tmp_path, search):
    out = tmp_path / "out.onnx"
    given = {"score": "norm", "replace": "zero", "provider": "cpu"}
    report = compress_to_goal(path, data(), output=out, max_bytes=9000, search=search, **given).report
    assert out.stat().st_size == report.goal.reached <= 9000
    kept = 1 - report.goal.value if search == "units" else report.goal.value
    larger = kept * 1.03  # of 120 units one or two more
    more = compress(
        path, data(), output=out, **{search: 1 - larger if search == "units" else larger}, **given
    )
    assert more.report.bytes_after > 9000 or report.goal.reached >= 0.95 * 9000


def test_the_search_goes_over_sketches_and_prunes_little(path, monkeypatch):
    made, original = [], Prepared.prune
    monkeypatch.setattr(
        Prepared, "prune", lambda self, options: made.append(options) or original(self, options)
    )
    compress_to_goal(path, data(), max_bytes=8000, provider="cpu")
    assert len(made) <= 2


def test_what_cannot_be_is_refused_with_what_can(path, tmp_path):
    given = {"recipe": "magnitude", "provider": "cpu"}
    with pytest.raises(
        BudgetError, match=r"--max-bytes 900 cannot be met: --ratio 0\.\d+ still takes [\d,]+ bytes"
    ):
        compress_to_goal(path, data(), max_bytes=900, output=tmp_path / "no", **given)
    assert not (tmp_path / "no").exists()


def test_what_fits_already_is_written_whole_and_said(path, tmp_path):
    result = compress_to_goal(
        path, data(), max_bytes=100_000, recipe="magnitude", output=tmp_path / "out", provider="cpu"
    )
    assert result.report.kept_ratio == 1 and any("nothing had to go" in w for w in result.report.warnings)
    assert np.isclose(result.report.metric.after, 1)
