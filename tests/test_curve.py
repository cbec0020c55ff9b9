"""The curve: every point is what a compression of its own gives, and the table and the picture show it."""

import onnx_ir as ir
import pytest
from click.testing import CliRunner
from goals.nets import data, saved

from onnxprune import accuracy_curve, compress, prepared
from onnxprune.cli import main
from onnxprune.errors import BudgetError, OutputError, UsageError
from onnxprune.report.plot import check_plot, draw
from onnxprune.report.schema import SweepReport
from onnxprune.session import Session


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path)


def labelled(path):
    x = data(100, 7)
    return {"x": x, "labels": Session(path, "cpu").run({"x": x})["y"].argmax(1)}


def test_a_point_is_a_compression_and_statistics_are_gathered_once(path, tmp_path, monkeypatch):
    calls, original = [], prepared.gather
    monkeypatch.setattr(prepared, "gather", lambda *given: calls.append(given) or original(*given))
    recipes, ratios = ("magnitude", "wanda", "default"), (0.5, 0.2)
    given = {"evaluation": labelled(path), "provider": "cpu"}
    report = accuracy_curve(path, data(), recipes=recipes, ratio=ratios, **given)
    assert len(calls) == 1 and report.metric == "top1" and report.dense == 1
    assert [(p.method, p.value) for p in report.points] == [(m, r) for m in recipes for r in ratios]
    for point in report.points[1::2]:
        out = tmp_path / "out.onnx"
        alone = compress(path, data(), output=out, recipe=point.method, ratio=point.value, **given).report
        assert (point.metric, point.kept_ratio) == (alone.metric.after, alone.kept_ratio)
        assert (point.bytes, point.macs) == (out.stat().st_size, alone.macs_after)
    assert SweepReport.model_validate_json(report.model_dump_json()) == report


def test_units_are_swept_and_what_cannot_be_is_listed(path):
    given = {"score": "norm", "replace": "zero", "provider": "cpu"}
    report = accuracy_curve(path, data(), macs=(0.5, 1e-9), **given)
    (point,), (skipped,) = report.points, report.skipped
    assert point.target == "macs" and point.macs <= 0.5 * report.macs_before
    assert skipped.name == "default --macs 1e-09" and "cannot be met" in skipped.reason
    with pytest.raises(BudgetError, match="cannot be met"):
        accuracy_curve(path, data(), macs=(1e-9,), **given)


@pytest.mark.parametrize("given", [{}, {"ratio": ()}, {"ratio": (0.5,), "macs": (0.5,)}, {"ratio": 0.5}])
def test_there_is_one_axis(path, given):
    with pytest.raises(UsageError, match="one of --ratio, --units and --macs"):
        accuracy_curve(path, data(), **given)


def test_the_command_prints_the_table_and_draws(path, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", str(path), "--data", "noise", "--samples", "16", "--ratio", "50%,0.2", "--quiet"]
    arguments += ["--recipe", "magnitude", "--recipe", "wanda", "--json", "curve.json", "--plot", "curve.svg"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = SweepReport.model_validate_json((tmp_path / "curve.json").read_text())
    assert [point.value for point in report.points] == [0.5, 0.2] * 2
    picture = (tmp_path / "curve.svg").read_text()
    assert "magnitude" in picture and "wanda" in picture and "dense" in picture and report.metric in picture
    shown = CliRunner().invoke(main, [word for word in arguments[:-4] if word != "--quiet"])
    for point in report.points:
        assert f"{point.bytes:,}" in shown.stdout and point.method in shown.stdout
    with pytest.raises(OutputError, match="nowhere"):
        draw(report, tmp_path / "nowhere" / "curve.svg")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_picture_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.svg"):
        check_plot(tmp_path / "curve.gif")


def test_the_model_is_left_as_it_was(path):
    before = path.read_bytes()
    accuracy_curve(path, data(), ratio=(0.5,), recipes=("magnitude",), provider="cpu")
    assert path.read_bytes() == before and ir.load(path)
