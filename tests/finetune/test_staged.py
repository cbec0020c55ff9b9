"""Prune and fine-tune in turns: ratios of the dense model, pruned weights stay, one report of all stages."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from units.nets import run

from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.evaluate import evaluate
from onnxprune.model import load, parameter_count, parameters
from onnxprune.report.schema import CompressionReport
from onnxprune.staged import compress_in_stages

from .conftest import Lesson

FAST = {"provider": "cpu", "saliency": "magnitude", "surgeon": "none", "allocation": "global"}


def nonzero(model) -> int:
    return sum(int(np.count_nonzero(tensor.numpy())) for tensor in parameters(model).values())


def test_every_ratio_is_one_of_the_dense_model(lesson: Lesson):
    """Dead units leave at every stage: a ratio of what is left would keep less than was asked for."""
    out = lesson.folder / "out.onnx"
    result = compress_in_stages(
        lesson.dense,
        lesson.data,
        schedule=(0.4, 0.15, 0.1),
        training={"epochs": 2},
        output=out,
        evaluation=lesson.test,
        **FAST,
    )
    total = parameter_count(load(lesson.dense))
    assert [row.ratio for row in result.report.stages] == [0.4, 0.15, 0.1]
    for row in result.report.stages:
        assert round(row.kept_ratio * total) == int(row.ratio * total)
    assert nonzero(result.model) == nonzero(load(out)) == int(0.1 * total)
    assert parameter_count(result.model) < total
    report = result.report
    assert report.nonzero_after == int(0.1 * total) and report.params_before == total
    assert report.bytes_after == out.stat().st_size and report.macs_after < report.macs_before
    for row in report.layers:  # of the tuned model, not of the first stage
        assert sum(row.histogram.after) == round(row.kept * np.prod(row.shape))
    kept = {row.name: row.kept for row in report.layers}
    assert 0 < min(kept.values()) and max(kept.values()) < 1
    accuracy = evaluate(load(out).ir, lesson.test, provider="cpu").values[report.metric.name]
    assert report.metric.after == pytest.approx(accuracy, abs=1e-9)
    dense = evaluate(load(lesson.dense).ir, lesson.test, provider="cpu").values[report.metric.name]
    assert report.metric.before == pytest.approx(dense, abs=1e-9)


def test_tuning_is_worth_more_than_pruning_alone(lesson: Lesson):
    """By magnitude and without a surgeon a third of the weights leaves little over chance; see the margin."""
    given = {"training": {"epochs": 20, "learning_rate": 0.01}, "evaluation": lesson.test, **FAST}
    rows = compress_in_stages(lesson.dense, lesson.data, schedule=(0.3, 0.2), **given).report.stages
    assert all(row.tuned > row.pruned + 0.05 for row in rows)  # ten of the 200 test samples


def test_units_go_in_the_first_stage_alone(lesson: Lesson):
    given = {"training": {"epochs": 1}, "score": "norm", "replace": "zero", **FAST}
    result = compress_in_stages(lesson.dense, lesson.data, units=0.5, schedule=(0.3, 0.2), **given)
    (row,) = result.report.units
    assert (row.units, row.kept) == (64, 32)
    assert next(iter(parameters(result.model).values())).shape.numpy()[0] <= 32


@pytest.mark.parametrize(
    "given, message",
    [
        ({"schedule": (0.5, 0.5)}, r"^--schedule 0.5,0.5: ratios must fall$"),
        ({"schedule": (0.5, 0.1), "ratio": 0.2}, r"^--schedule ends at 0.1 and --ratio says 0.2"),
        ({}, r"^say what to prune"),
    ],
)
def test_schedules_that_make_no_sense(lesson: Lesson, given, message):
    with pytest.raises(UsageError, match=message):
        compress_in_stages(lesson.dense, lesson.data, training={"epochs": 1}, **given)


def test_the_command_line_writes_what_it_reports(lesson: Lesson):
    out, report = lesson.folder / "out.onnx", lesson.folder / "report.json"
    arguments = ["--data", lesson.data, "--eval", lesson.test, "-o", out, "--json", report]
    options = ["--finetune", 2, "--schedule", "50%,0.2", "--training", "learning-rate=0.01"]
    result = CliRunner().invoke(main, ["compress", str(lesson.dense), *map(str, [*arguments, *options])])
    assert result.exit_code == 0, result.output
    assert "stage, kept" in result.output
    record = CompressionReport.model_validate_json(report.read_text())
    assert [row.ratio for row in record.stages] == [0.5, 0.2]
    assert nonzero(load(out)) == record.nonzero_after
    assert [value.name for value in onnx.load(out).graph.output] == ["p"]
    x = {"x": np.zeros((2, 8), np.float32)}
    np.testing.assert_allclose(run(load(out).ir, x)["p"].sum(1), 1, atol=1e-5)  # still a softmax


@pytest.mark.parametrize(
    "options, words",
    [
        (["--schedule", "0.5,0.2"], "--schedule is for fine-tuning"),
        (["--ratio", "0.2", "--training", "momentum=0.5"], "--training is for fine-tuning"),
        (["--ratio", "0.2", "--finetune", "1", "--training", "speed=3"], "--speed '3': "),
        (["--ratio", "0.2", "--finetune", "1", "--training", "momentum"], "is not NAME=VALUE"),
        (["--ratio", "0.2", "--finetune", "0"], "--epochs 0: "),
        (["--ratio", "0.2", "--finetune", "1", "--stats", "a.stats"], "--stats goes with pruning once"),
        (["--finetune", "1", "--schedule", "0.2,0.5"], "ratios must fall"),
    ],
)
def test_wrong_calls_are_refused_in_a_line(lesson: Lesson, options, words):
    out = lesson.folder / "out.onnx"
    arguments = ["compress", str(lesson.dense), "--data", str(lesson.data), "-o", str(out), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and words in result.output
    assert not out.exists() and "Traceback" not in result.output
