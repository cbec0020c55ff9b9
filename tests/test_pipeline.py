"""The main job on tiny models: report, file, reuse of statistics, and the same bytes twice."""

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sweep.test_walk import net
from tiny import samples

from onnxprune import prepared, prune
from onnxprune.errors import BudgetError, DataError, MemoryBudgetError, StatisticsError, UsageError
from onnxprune.layers import find_layers
from onnxprune.model import load, parameters
from onnxprune.output import METADATA_KEY
from onnxprune.pipeline import calibrate, compress
from onnxprune.plan import Plan
from onnxprune.report.schema import CompressionReport
from onnxprune.room import required
from onnxprune.session import Session
from onnxprune.statistics import Gathering, fitting, shelf
from onnxprune.sweep import Limits
from onnxprune.unpacking import unpack


@dataclass
class Counted:
    """As much of data as a prediction looks at."""

    count: int


ROOT = Path(__file__).resolve().parent.parent
LENET_5, CALIBRATION = ROOT / "models/lenet_5.onnx", ROOT / "calibration/lenet_5.npz"
FAST = {"steps": 1, "provider": "cpu"}


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny network; hands back its path and calibration data."""

    def save(name="residual", seed=0, count=48):
        model, shape = net(name, seed)
        path = tmp_path / f"{name}_{seed}.onnx"
        ir.save(model, path)
        return path, samples(shape, count)

    return save


def nonzero(model):
    return sum(int(np.count_nonzero(tensor.numpy())) for tensor in parameters(model).values())


@pytest.mark.parametrize("recipe", ["default", "mlprune"])
def test_factors_in_files_prune_as_factors_in_memory(saved, recipe, monkeypatch):
    path, data = saved("residual")
    held = compress(path, data, ratio=0.3, recipe=recipe, **FAST)
    monkeypatch.setattr(shelf, "_MOST", 0)
    filed = compress(path, data, ratio=0.3, recipe=recipe, **FAST)
    assert held.report.nonzero_after == filed.report.nonzero_after
    for name, mask in held.plan.kept.items():
        np.testing.assert_array_equal(filed.plan.kept[name], mask)


@pytest.mark.parametrize("name", ["residual", "tokens", "concat", "transposed", "cnn", "mlp"])
def test_the_report_says_what_is_in_the_file(saved, tmp_path, name):
    path, x = saved(name)
    out = tmp_path / "out.onnx"
    result = compress(path, x, output=out, ratio=0.5, pack="none", **FAST)
    report, dense, small = result.report, load(path), load(out)
    assert report.params_before == sum(tensor.size for tensor in parameters(dense).values())
    assert report.nonzero_after == nonzero(result.model) == nonzero(small) == int(0.5 * report.params_before)
    assert report.kept_ratio == report.nonzero_after / report.params_before
    assert report.params_after == sum(tensor.size for tensor in parameters(result.model).values())
    assert report.bytes_before == path.stat().st_size and report.bytes_after == out.stat().st_size
    assert report.model == str(path) and report.output == str(out) and "48 samples" in report.data
    assert {row.name for row in report.layers} == set(result.plan.kept)
    for row in report.layers:
        assert 0 <= row.kept <= 1 and row.importance is not None
        assert sum(row.histogram.before) == prod(row.shape)
        assert sum(row.histogram.after) == round(row.kept * prod(row.shape))
    drawn = report.saliency_map
    assert sum(drawn.kept) == sum(int(mask.sum()) for mask in result.plan.kept.values())
    assert sum(drawn.kept) + sum(drawn.pruned) == sum(prod(row.shape) for row in report.layers)
    assert report.sha256 == dense.sha256 and report.command is None
    assert sum(row.importance for row in report.layers) == pytest.approx(1)
    assert set(report.seconds) >= {"load", "statistics", "prune", "clean up", "write", "evaluate"}
    assert report.metric is not None and report.options["ratio"] == 0.5
    assert report.opset_after == dense.ir.opset_imports[""]


def test_report_and_plan_survive_json(saved):
    path, x = saved()
    result = compress(path, x, ratio=0.4, **FAST)
    assert CompressionReport.model_validate_json(result.report.model_dump_json(indent=2)) == result.report
    plan = Plan.from_json(result.plan.to_json())
    assert plan.sha256 == load(path).sha256 and plan.options["ratio"] == 0.4
    for name, mask in result.plan.kept.items():
        np.testing.assert_array_equal(plan.kept[name], mask)


@pytest.mark.parametrize("pack", ["fp32", "fp16", "none"])
def test_the_file_computes_what_the_pruned_model_does(saved, tmp_path, pack):
    path, x = saved()
    result = compress(path, x, output=tmp_path / "out.onnx", ratio=0.3, pack=pack, **FAST)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    want = Session(result.model, "cpu").run({"x": x})["y"]
    for optimise in (False, True):
        got = Session(tmp_path / "out.onnx", "cpu", optimise=optimise).run({"x": x})["y"]
        # half-precision weights are good to 5e-4
        np.testing.assert_allclose(got, want, atol=(1e-2 if pack == "fp16" else 1e-4) * np.abs(want).max())


def test_the_metadata_says_how_the_file_was_made(saved, tmp_path):
    path, x = saved()
    compress(path, x, output=tmp_path / "out.onnx", recipe="magnitude", ratio=0.5, seed=3, provider="cpu")
    (text,) = [p.value for p in onnx.load(tmp_path / "out.onnx").metadata_props if p.key == METADATA_KEY]
    record = json.loads(text)
    assert record["recipe"] == "magnitude" and record["version"]
    assert (record["options"]["ratio"], record["options"]["seed"]) == (0.5, 3)


@pytest.mark.parametrize("name", ["residual", "tokens"])
@pytest.mark.parametrize("recipe", ["default", "mlprune"])
def test_two_equal_runs_write_identical_bytes(saved, tmp_path, name, recipe):
    path, x = saved(name)
    for out in ("one", "two"):
        compress(path, x, output=tmp_path / out, recipe=recipe, ratio=0.4, **FAST)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("recipe", ["default", "mlprune", "wanda"])
def test_saved_statistics_give_what_fresh_ones_give(saved, tmp_path, recipe):
    path, x = saved()
    average = "exponential" if recipe == "mlprune" else "mean"
    calibrate(path, x, output=tmp_path / "stats", average=average, provider="cpu")
    compress(path, x, output=tmp_path / "fresh", recipe=recipe, ratio=0.4, **FAST)
    compress(
        path, x, output=tmp_path / "reused", statistics=tmp_path / "stats", recipe=recipe, ratio=0.4, **FAST
    )
    assert (tmp_path / "fresh").read_bytes() == (tmp_path / "reused").read_bytes()


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_a_limit_of_memory_changes_nothing_but_the_report(saved, tmp_path, monkeypatch, name):
    """Factors in files, several passes, frontiers that hold nothing in memory: the same bytes."""
    path, x = saved(name)
    free = compress(path, x, output=tmp_path / "free.onnx", ratio=0.4, **FAST)
    monkeypatch.setattr(fitting, "resident", lambda: 0)
    monkeypatch.setattr(fitting, "_COPIES", 0)
    monkeypatch.setattr(fitting, "_BLAS", 0)
    monkeypatch.setattr(fitting, "_SESSION", 0)
    monkeypatch.setattr(fitting, "_values", lambda model, data, how: (lambda run: 0, [data.batch_size]))
    monkeypatch.setattr(prune, "for_sweep", lambda layers, data, limit: Limits(0))
    needs = [fitting._need(layer, Counted(48), Gathering()) for layer in find_layers(load(path).ir.graph)]
    least = max(fitting._taken([need]) for need in needs)
    monkeypatch.setattr(prepared, "required", lambda layers, data, limit: least)
    held = compress(path, x, output=tmp_path / "held.onnx", ratio=0.4, memory=least, **FAST)
    assert held.report.memory.passes > 1 and held.report.memory.spilled
    assert held.report.memory.limit == least and held.report.memory.peak > 0
    for before, after in zip(parameters(free.model).values(), parameters(held.model).values(), strict=True):
        np.testing.assert_array_equal(before.numpy(), after.numpy())


def test_what_takes_too_much_memory_is_refused_before_any_work(saved, tmp_path):
    path, x = saved("cnn")
    with pytest.raises(MemoryBudgetError, match=r"layer '.*' .* more than --memory 1,000,000; give at least"):
        compress(path, x, output=tmp_path / "out.onnx", ratio=0.4, memory=10**6, **FAST)
    assert not (tmp_path / "out.onnx").exists()
    layers = find_layers(load(path).ir.graph).layers
    with pytest.raises(
        MemoryBudgetError, match=r"layer '.*' takes .* while it is refitted, .* --memory \d+MiB"
    ) as refused:
        required(layers, Counted(48), 10**6)
    (least,) = re.findall(r"at least --memory (\d+)MiB", str(refused.value))
    enough = (int(least) + 64) << 20  # the process itself may have grown since
    assert required(layers, Counted(48), enough) <= enough


def test_statistics_of_another_model_are_refused(saved, tmp_path):
    path, x = saved()
    calibrate(path, x, output=tmp_path / "stats", provider="cpu")
    other, _ = saved(seed=1)
    with pytest.raises(StatisticsError, match="of another model"):
        compress(other, x, statistics=tmp_path / "stats", ratio=0.4)


def test_statistics_that_lack_a_layer_are_refused(saved):
    path, x = saved()
    statistics = calibrate(path, x, provider="cpu")
    del statistics.layers["head"]
    with pytest.raises(StatisticsError, match="lack layer 'head'; run `onnxprune calibrate` again"):
        compress(path, x, statistics=statistics, ratio=0.4)


@pytest.mark.parametrize("recipe", ["default", "mlprune", "magnitude", "wanda"])
def test_every_recipe_runs_to_a_file_within_its_ratio(saved, tmp_path, recipe):
    path, x = saved()
    result = compress(path, x, output=tmp_path / "out", recipe=recipe, ratio=0.25, provider="cpu")
    target = int(0.25 * result.report.params_before)
    if recipe == "mlprune":  # the paper gives nothing back for weights on dead units
        assert result.report.nonzero_after <= target
    else:
        assert result.report.nonzero_after == target


def test_a_pattern_is_in_the_result(saved):
    path, x = saved("mlp")
    result = compress(path, x, pattern="1:2", **FAST)
    for name, mask in result.plan.kept.items():
        whole = mask.shape[2] // 2 * 2
        assert (mask[:, :, :whole].reshape(mask.shape[1], -1, 2).sum(2) == 1).all(), name


@pytest.mark.parametrize("given", [{}, {"macs": 0.5}, {"units": 0.3, "surgeon": "sweep"}], ids=str)
def test_units_that_went_moved_the_groups_of_a_pattern(tmp_path, given):
    """Without a dead unit, or one that was cut, all after it stood one place further up: no 2:4 was left."""
    compress(
        *(LENET_5, CALIBRATION),
        **{
            "pattern": "2:4",
            "recipe": "magnitude",
            "samples": 64,
            "output": tmp_path / "small.onnx",
            **given,
        },
    )
    unpack(tmp_path / "small.onnx", tmp_path / "plain.onnx")
    tensors = onnx.load(tmp_path / "plain.onnx").graph.initializer
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) > 1]
    assert len(weights) == 4
    for weight in weights:
        by_channel = np.moveaxis(weight.reshape(*weight.shape[:2], -1), 1, 2)
        whole = by_channel[..., : weight.shape[1] // 4 * 4]
        assert (np.count_nonzero(whole.reshape(-1, 4), axis=1) <= 2).all(), weight.shape


def test_excluded_layers_are_reported_and_whole(saved):
    path, x = saved()
    result = compress(path, x, ratio=0.6, exclude=("head",), **FAST)
    assert {entry.name: entry.reason for entry in result.report.skipped}[
        "head"
    ] == "excluded by --exclude 'head'"
    assert "head" not in result.plan.kept
    (row,) = [row for row in result.report.layers if row.name == "head"]
    assert row.kept == 1 and row.importance is None


def test_true_labels_make_the_metric_an_accuracy(saved):
    path, x = saved()
    labels = Session(path, "cpu").run({"x": x})["y"].argmax(1)
    result = compress(path, x, evaluation={"x": x, "labels": labels}, ratio=0.5, **FAST)
    assert result.report.metric.name == "top1" and result.report.metric.before == 1
    assert 0 <= result.report.metric.after <= 1


def test_without_data_it_warns_loudly(saved):
    path, _ = saved("mlp")
    result = compress(path, ratio=0.5, samples=40, **FAST)
    assert any(
        warning.startswith("data-free: 40 samples of random noise") for warning in result.report.warnings
    )


def test_a_loaded_model_is_taken_and_left_as_it_was(saved):
    path, x = saved()
    model = load(path)
    before = {name: tensor.numpy().copy() for name, tensor in parameters(model).items()}
    compress(model, x, ratio=0.3, **FAST)
    for name, tensor in parameters(model).items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def test_the_model_may_be_replaced_by_its_own_result(saved):
    path, x = saved()
    before = path.stat().st_size
    result = compress(path, x, output=path, ratio=0.2, **FAST)
    assert result.report.bytes_before == before and path.stat().st_size == result.report.bytes_after


@pytest.mark.parametrize(
    "given, error",
    [
        ({"ratio": 0.01}, BudgetError),
        ({"ratio": 2}, UsageError),
        ({"ratio": 0.5, "exclude": ("nothing",)}, UsageError),
        ({"ratio": 0.5, "recipe": "magic"}, UsageError),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(saved, tmp_path, given, error):
    path, x = saved()
    with pytest.raises(error):
        compress(path, x, output=tmp_path / "out", provider="cpu", **given)
    assert not (tmp_path / "out").exists()


def test_data_that_does_not_fit_is_refused(saved):
    path, x = saved()
    with pytest.raises(DataError):
        compress(path, x[:, :2], ratio=0.5)
