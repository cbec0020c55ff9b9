"""Goals on the command line: what is said, what is refused, and a metric from the user's folder."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from goals.nets import data, saved

from onnxprune.aims import Goal, resolve_goal
from onnxprune.cli import main
from onnxprune.cli.parameters import size
from onnxprune.errors import UsageError
from onnxprune.report.schema import CompressionReport


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    saved(tmp_path)
    np.savez("data.npz", x=data(32))
    np.savez("test.npz", x=data(200, 5))
    return tmp_path


def run(*arguments):
    given = ["compress", "net.onnx", "--data", "data.npz", "--recipe", "magnitude", *arguments]
    return CliRunner().invoke(main, given)


def test_a_goal_is_searched_printed_and_written(folder):
    (folder / "own_metrics.py").write_text(
        "import numpy as np\n"
        "def same(outputs, labels, reference):\n"
        "    pairs = zip(outputs['y'], reference['y'], strict=True)\n"
        "    return np.mean(np.concatenate([y.argmax(1) == r.argmax(1) for y, r in pairs]))\n"
    )
    given = ["--eval", "test.npz", "--max-drop", "10%", "--json", "out.json", "-o", "out.onnx"]
    built_in = run(*given)
    assert built_in.exit_code == 0, built_in.output
    report = CompressionReport.model_validate_json((folder / "out.json").read_text())
    assert "tried --ratio" in built_in.stdout and "too much" in built_in.stdout
    assert f"--max-drop 0.1: --ratio {report.goal.value:g} has a drop of" in built_in.stdout
    assert "100 of test.npz: 200 samples, held back" in built_in.stdout and "(95 %: " in built_in.stdout
    own = run(*given, "--metric", "own_metrics:same")
    assert own.exit_code == 0, own.output
    again = CompressionReport.model_validate_json((folder / "out.json").read_text())
    assert again.metric.name == "same" and again.metric.after == report.metric.after
    assert again.goal.value == report.goal.value and again.goal.interval is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--max-drop", "0.1", "--ratio", "0.5"], "--max-drop finds --ratio itself; leave --ratio out"),
        (["--max-drop", "0.1", "--pattern", "2:4"], "leave --pattern out"),
        (
            ["--max-drop", "0.1", "--search", "macs", "--units", "0.5"],
            "finds --macs itself; leave --units out",
        ),
        (["--speedup", "2", "--macs", "0.5"], "leave --macs out"),
        (["--speedup", "2", "--search", "ratio"], "zeros do not make onnxruntime faster"),
        (["--max-drop", "0.1", "--max-bytes", "2MB"], "one at a time"),
        (["--max-bytes", "2MB", "--batch", "4"], "--batch goes with --speedup"),
        (["--batch", "4", "--ratio", "0.5"], "--batch goes with --max-drop, --max-bytes or --speedup"),
        (["--max-drop", "-1"], "--max-drop"),
        (["--speedup", "0.5"], "--speedup"),
        (["--max-bytes", "much"], "500kB, 2MB or 1.5MiB"),
        (["--max-bytes", "0"], "--max-bytes"),
        (["--max-drop", "0.1"], "give it with --eval"),
        (["--max-drop", "0.1", "--finetune", "1"], "prunes once, without --finetune"),
        (["--ratio", "0.5", "--metric", "own"], "MODULE:OBJECT"),
    ],
)
def test_what_cannot_be_meant_is_one_line(folder, arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2 and said in result.stderr, result.output
    assert [line.startswith("error: ") for line in result.stderr.splitlines()] == [True]
    assert not (folder / "net.pruned.onnx").exists()


@pytest.mark.parametrize(
    "text, count",
    [("2000000", 2_000_000), ("2MB", 2_000_000), ("500 kB", 500_000), ("1.5MiB", 1_572_864), ("3k", 3000),
     ("12b", 12), ("1GiB", 1 << 30)],
)  # fmt: skip
def test_sizes_have_units(text, count):
    assert size(text) == count


def test_the_axis_has_a_default():
    axes = [resolve_goal({name: 2.0}, {}).axis for name in ("max_drop", "max_bytes", "speedup")]
    assert axes == ["ratio", "ratio", "macs"]
    assert resolve_goal(dict.fromkeys(Goal.model_fields), {"ratio": 0.5}) is None
    # what is not searched may be given beside it: units first, then weights until the goal is met
    assert resolve_goal({"max_bytes": 10}, {"macs": 0.5}).axis == "ratio"
    with pytest.raises(UsageError):
        resolve_goal({"max_bytes": 10}, {"ratio": 0.5})
