"""Units through the whole job: what is asked for goes, the rest makes up for it, and the file still runs."""

import numpy as np
import onnx_ir as ir
import pytest
from sweep.test_walk import NETS, error, net
from tiny import TWINS, data_for, samples
from units.nets import parsed

from onnxprune.errors import BudgetError, UsageError
from onnxprune.layers import find_layers
from onnxprune.model import load
from onnxprune.options import Replacement, Score
from onnxprune.pipeline import calibrate, compress
from onnxprune.plan import Plan
from onnxprune.session import Session

FAST = {"provider": "cpu"}
SCORES, REPLACEMENTS = Score.__args__, Replacement.__args__


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny network; hands back its path and calibration data."""

    def save(name="residual", seed=0, count=64):
        model, shape = net(name, seed)
        path = tmp_path / f"{name}_{seed}.onnx"
        ir.save(model, path)
        return path, samples(shape, count)

    return save


def sizes(model):
    return {layer.name: layer.shape for layer in find_layers(model.graph)}


@pytest.mark.parametrize("replace", REPLACEMENTS)
@pytest.mark.parametrize("score", SCORES)
def test_every_score_with_every_replacement(saved, tmp_path, score, replace):
    """Writing compares the file with the whole graph, units silenced."""
    path, x = saved("residual")
    out = tmp_path / "out.onnx"
    result = compress(path, x, output=out, units=0.5, scope="layer", score=score, replace=replace, **FAST)
    rows = {row.name: (row.units, row.kept) for row in result.report.units}
    assert rows == {"stem": (6, 3), "conv1": (6, 3), "conv3": (8, 4)}
    assert sizes(load(out).ir)["head"] == (36, 5)
    assert result.report.macs_after < 0.5 * result.report.macs_before
    y = Session(out, "cpu").run({"x": x})["y"]
    np.testing.assert_allclose(y, Session(result.model, "cpu").run({"x": x})["y"], atol=1e-5)


@pytest.mark.parametrize("name", sorted({*NETS, *TWINS}))
def test_macs_are_met_on_every_net(saved, tmp_path, name):
    path, x = saved(name)
    try:
        report = compress(path, x, output=tmp_path / "out.onnx", macs=0.7, **FAST).report
    except BudgetError as refusal:
        assert "--macs 0.7 cannot be met" in str(refusal) or "no unit can be removed" in str(refusal)
        return
    assert report.macs_after <= 0.7 * report.macs_before
    assert any(row.kept < row.units for row in report.units)


@pytest.mark.parametrize("name", ["residual", "concat", "mlp", "cnn", "transposed"])
def test_mean_is_better_than_zero_and_linear_better_than_mean(saved, name):
    path, x = saved(name, count=256)
    dense = load(path).ir
    data = data_for(dense, x, 64)
    errors = {}
    for replace in REPLACEMENTS:
        model = compress(path, x, units=0.5, score="norm", replace=replace, **FAST).model
        errors[replace] = error(dense, model, data)
    assert errors["linear"] < errors["mean"] < errors["zero"]


def test_the_mean_output_of_a_linear_reader_is_that_of_the_dense_network(saved):
    """B + W_J μ_J: the best a bias can do leaves no mean error."""
    path, x = saved("mlp")
    model = compress(path, x, units=0.5, recipe="mean-replacement", **FAST).model
    want, got = (Session(graph, "cpu").run({"x": x})["y"] for graph in (load(path).ir, model))
    np.testing.assert_allclose(got.mean(0), want.mean(0), atol=1e-5)  # float32 sums of 64 rows
    assert np.abs(got - want).max() > 0.01


def test_a_reader_without_bias_gets_one():
    model = parsed(
        """net (float[n,6] x) => (float[n,4] y) {
            [one] h = Gemm(x, w0, b0)
            a = Relu(h)
            [two] m = MatMul(a, w1)
            [three] c = Gemm(a, w2)
            y = Add(m, c)
        }""",
        {"w0": (6, 8), "b0": (8,), "w1": (8, 4), "w2": (8, 4)},
    )
    x = samples((6,), 64)
    dense = load(model)
    result = compress(dense, x, units=0.5, replace="mean", score="norm", **FAST)
    biases = [layer.bias for layer in find_layers(result.model.graph)]
    assert all(bias is not None for bias in biases)
    want, got = (Session(graph, "cpu").run({"x": x})["y"] for graph in (model, result.model))
    np.testing.assert_allclose(got.mean(0), want.mean(0), atol=1e-4)


def test_units_and_weights_together_keep_the_ratio_of_the_original(saved, tmp_path):
    path, x = saved("residual")
    for given in (
        {},
        {"replace": "mean"},
        {"surgeon": "joint"},
        {"surgeon": "none", "saliency": "magnitude"},
    ):
        out = tmp_path / "out.onnx"
        report = compress(path, x, output=out, units=0.3, ratio=0.3, scope="layer", **given, **FAST).report
        assert report.nonzero_after == int(0.3 * report.params_before)
        assert report.params_after < 0.7 * report.params_before


def test_biases_of_units_that_die_of_weights_are_given_back_though_other_units_were_cut(saved):
    """They were taken for those of the cut, and the file kept fewer parameters than asked for."""
    path, x = saved("residual", count=32)
    for ratio in (0.2, 0.15, 0.1):
        result = compress(path, x, units=0.2, ratio=ratio, scope="layer", score="norm", **FAST)
        assert result.report.nonzero_after == int(ratio * result.report.params_before)


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_steps_end_where_one_step_does(saved, replace):
    path, x = saved("residual")
    given = {"units": 0.5, "score": "norm", "replace": replace, **FAST}
    once, thrice = (compress(path, x, steps=steps, **given) for steps in (1, 3))
    assert once.plan.units == thrice.plan.units and sizes(once.model) == sizes(thrice.model)


def test_counts_minima_and_multiples(saved):
    path, x = saved("residual")

    def kept(**given):
        report = compress(path, x, score="norm", replace="zero", scope="layer", **given, **FAST).report
        return [row.kept for row in report.units]

    assert kept(units=1) == [5, 5, 7]
    assert kept(units=5) == [1, 1, 3]
    assert kept(units=5, min_units=2) == [2, 2, 3]
    assert kept(units=0.5, round_to=4) == [4, 4, 4]
    assert kept(units=0.5, units_of={"conv1": 0.0, "conv3": 0.25}) == [3, 6, 6]
    assert kept(units=0.5, exclude=("conv1",)) == [4]  # stem's units are read by conv1 too


def test_patterns_that_name_nothing_and_what_cannot_be_met(saved, tmp_path):
    path, x = saved("residual")
    with pytest.raises(UsageError, match="no layer or weight is named like 'nothing'"):
        compress(path, x, units=0.5, units_of={"nothing": 0.5}, **FAST)
    with pytest.raises(BudgetError, match=r"--macs 0.001 cannot be met: .* remain; ask for less"):
        compress(path, x, macs=0.001, **FAST)
    with pytest.raises(BudgetError, match=r"--units 0.99 leaves 0 of 20 units, but 3 must stay"):
        compress(path, x, units=0.99, **FAST)


def test_a_model_without_removable_units_says_why():
    model = parsed(
        "net (float[n,6] x) => (float[n,4] y) { [only] y = Gemm(x, w, b) }", {"w": (6, 4), "b": (4,)}
    )
    with pytest.raises(BudgetError, match=r"no unit can be removed: 'y' is an output of the model; "):
        compress(load(model), samples((6,), 8), units=0.5, **FAST)


def test_the_plan_has_the_units_and_statistics_serve_units_and_weights(saved, tmp_path):
    path, x = saved("residual")
    statistics = tmp_path / "one.stats"
    calibrate(path, x, output=statistics, provider="cpu")
    first = compress(path, x, macs=0.6, ratio=0.2, statistics=statistics, **FAST)
    second = compress(path, x, macs=0.6, ratio=0.2, **FAST)
    plan = Plan.from_json(first.plan.to_json())
    assert plan.units == second.plan.units and sum(map(len, plan.units.values())) > 0
    for row in first.report.units:
        assert len(plan.units[row.name]) == row.units - row.kept
    assert {row.name for row in first.report.units} == set(plan.units)
