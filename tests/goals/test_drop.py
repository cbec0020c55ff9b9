"""The goal `max_drop`: against every candidate there is, and with a half held back that disagrees."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from goals import nets
from scipy.stats import binomtest
from sweep.test_walk import net
from tiny import samples

from onnxprune import compress, compress_to_goal, prepared
from onnxprune.data import open_data
from onnxprune.data.parting import halves
from onnxprune.errors import BudgetError, UsageError
from onnxprune.evaluate import evaluate
from onnxprune.goals import drop
from onnxprune.model import load, parameters
from onnxprune.options import resolve
from onnxprune.prepared import Prepared
from onnxprune.session import Session

STEP = 1.06  # what the search stops at, and so how far it may be from the best of a finer grid
EVALUATIONS = 10


def fidelity(outputs, labels, reference):
    """Minus the mean squared error: falls smoothly as weights go, so that there is one right answer."""
    y, want = (np.concatenate(lists["y"]) for lists in (outputs, reference))
    return -float(((y - want) ** 2).mean())


def scale(outputs, labels, reference):
    """How large the outputs are, squared."""
    return float((np.concatenate(outputs["y"]) ** 2).mean())


@pytest.fixture
def saved(tmp_path):
    def save(name):
        model, shape = net(name)
        path = tmp_path / f"{name}.onnx"
        ir.save(model, path)
        x = samples(shape, 300, seed=4)
        return path, samples(shape, 64), {"x": x, "labels": Session(path, "cpu").run({"x": x})["y"].argmax(1)}

    return save


@pytest.fixture
def wide(tmp_path):
    path, x = nets.saved(tmp_path), nets.data(200, 4)
    return path, nets.data(), {"x": x, "labels": Session(path, "cpu").run({"x": x})["y"].argmax(1)}


@pytest.fixture
def pruned(monkeypatch):
    """Options of every candidate that was pruned in full."""
    made, original = [], Prepared.prune

    def noting(self, options):
        candidate = original(self, options)
        made.append(options)
        return candidate

    monkeypatch.setattr(Prepared, "prune", noting)
    return made


def grid(path, x, evaluation, seed=0):
    """The drop of the half to search on, by ratio, for ratios a twentieth apart."""
    ratios = np.exp(np.arange(np.log(0.1), 0, 0.05))
    methods = [resolve("magnitude", ratio=ratio, provider="cpu") for ratio in ratios.tolist()]
    several, dense = Prepared(path, x, methods), load(path).ir
    data, _ = halves(open_data(evaluation, dense.graph.inputs), seed)
    drops = {}
    for method in methods:
        try:
            model = several.prune(method).model
        except BudgetError:
            continue
        drops[method.ratio] = -evaluate(model, data, reference=dense, metric=fidelity, provider="cpu").value
    return drops


def test_the_ratio_is_the_smallest_that_keeps_to_the_drop(wide, pruned):
    path, x, evaluation = wide
    drops = grid(path, x, evaluation)
    ascending = [drops[ratio] for ratio in sorted(drops)]
    for allowed in np.quantile(ascending, [0.3, 0.7]).tolist():
        failing = max(ratio for ratio, lost in drops.items() if lost > allowed)
        smallest = min(ratio for ratio, lost in drops.items() if lost <= allowed)
        pruned.clear()
        given = {"recipe": "magnitude", "metric": fidelity, "provider": "cpu", "evaluation": evaluation}
        report = compress_to_goal(path, x, max_drop=allowed, **given).report
        assert len(pruned) <= EVALUATIONS and len(report.curve) <= EVALUATIONS
        least = min(trial.value for trial in report.goal.trials if trial.enough)
        # Where a smaller ratio does better than a larger one, any crossing between the two is an answer.
        assert smallest / STEP <= least <= failing * STEP**2


@pytest.mark.parametrize("search", ["ratio", "units", "macs"])
def test_the_report_says_what_was_searched_and_what_came_out(saved, tmp_path, search, pruned):
    path, x, evaluation = saved("residual")
    out = tmp_path / "out.onnx"
    result = compress_to_goal(
        path, x, evaluation=evaluation, output=out, max_drop=0.1, search=search, provider="cpu"
    )
    report, goal = result.report, result.report.goal
    assert (goal.name, goal.asked, goal.target) == ("max_drop", 0.1, search)
    assert len(pruned) <= EVALUATIONS
    assert report.options[search] == goal.value and out.stat().st_size == report.bytes_after
    seen, held = halves(open_data(evaluation, load(path).ir.graph.inputs), 0)
    before, after = (evaluate(p, held, provider="cpu").value for p in (path, out))
    assert (report.metric.name, report.metric.before, report.metric.after) == ("top1", before, after)
    assert goal.reached == pytest.approx(before - after) and goal.reached <= 0.1
    assert goal.interval[0] <= goal.reached <= goal.interval[1]
    wilson = binomtest(round(after * held.count), held.count).proportion_ci(method="wilson")
    assert report.metric.interval == (wilson.low, wilson.high)
    (chosen,) = [point for point in report.curve if point.chosen]
    assert chosen.value == goal.value and chosen.kept_ratio == report.kept_ratio
    assert chosen.bytes == report.bytes_after and chosen.macs == report.macs_after
    assert f"{held.count} of" in goal.measured and "held back" in goal.measured
    assert goal.dense == evaluate(path, seen, provider="cpu").value and goal.searched == seen.description
    for point, trial in zip(report.curve, goal.trials, strict=True):
        assert trial.reached == pytest.approx(goal.dense - point.metric, abs=1e-12)  # float64 differences
    enough = [trial.value for trial in goal.trials if trial.enough and not trial.draft]
    assert goal.value in enough and any(trial.draft for trial in goal.trials)


@pytest.mark.parametrize("search", ["ratio", "macs"])
def test_the_result_is_what_a_run_at_the_budget_found_gives(saved, search):
    path, x, evaluation = saved("residual")
    result = compress_to_goal(path, x, evaluation=evaluation, max_drop=0.1, search=search, provider="cpu")
    plain = compress(path, x, provider="cpu", **{search: result.report.goal.value})
    want = parameters(plain.model)
    assert parameters(result.model).keys() == want.keys()
    for name, tensor in parameters(result.model).items():
        np.testing.assert_array_equal(tensor.numpy(), want[name].numpy())


def test_most_candidates_are_drafts(saved, pruned):
    path, x, evaluation = saved("residual")
    given = {"evaluation": evaluation, "provider": "cpu"}
    trials = compress_to_goal(path, x, max_drop=0.1, **given).report.goal.trials
    assert len(pruned) == sum(not trial.draft for trial in trials) <= 4 < len(trials)
    pruned.clear()
    # where nothing is swept, a draft would save nothing, and nothing is pruned twice
    trials = compress_to_goal(path, x, max_drop=0.1, recipe="magnitude", **given).report.goal.trials
    assert not any(trial.draft for trial in trials) and len(pruned) == len(trials)


@pytest.mark.parametrize("factor", [0.85, 1.3])
def test_drafts_that_are_off_break_no_promise(wide, monkeypatch, factor):
    """Drafts that keep another share than they say: their answer is too large, or too small."""
    path, x, evaluation = wide
    given = {"recipe": "magnitude", "metric": fidelity, "provider": "cpu", "evaluation": evaluation}
    allowed = 0.02 * evaluate(path, evaluation, metric=scale, provider="cpu").value
    right = compress_to_goal(path, x, max_drop=allowed, **given).report.goal.value

    def draft(self, options):
        other = options.model_copy(update={"ratio": min(1.0, factor * options.ratio)})
        return replace(self.prune(other), options=options, draft=True)

    monkeypatch.setattr(Prepared, "draft", draft)
    goal = compress_to_goal(path, x, max_drop=allowed, **given).report.goal
    drafted = min(trial.value for trial in goal.trials if trial.draft and trial.enough)
    assert drafted > right * STEP if factor < 1 else drafted < right / STEP
    assert goal.reached <= allowed
    # steps up from too small a share are of 6, 12 and 26 %
    assert goal.value == drafted if factor < 1 else right / STEP <= goal.value <= right * 1.4


def test_statistics_are_gathered_once_and_nothing_else_is_seen_of_the_data(saved, monkeypatch):
    path, x, evaluation = saved("residual")
    calls, original = [], prepared.gather
    monkeypatch.setattr(prepared, "gather", lambda *given: calls.append(given) or original(*given))
    compress_to_goal(path, x, evaluation=evaluation, max_drop=0.2, provider="cpu")
    assert len(calls) == 1


def test_without_labels_it_is_agreement_with_the_dense_model(saved):
    path, x, evaluation = saved("mlp")
    report = compress_to_goal(path, x, evaluation=evaluation["x"], max_drop=0.1, provider="cpu").report
    assert report.metric.name == "agreement" and report.metric.before == 1
    assert report.goal.reached == pytest.approx(1 - report.metric.after)
    # the dense model is always right then, and the drop's interval is that of the share
    assert report.goal.interval[1] == pytest.approx(1 - report.metric.interval[0])


@pytest.fixture
def held_harder(monkeypatch):
    """Makes the inputs of the half held back so many times as large, and squared errors grow with them."""

    def by(factor):
        def split(data, seed):
            searched, held = halves(data, seed)
            parts = [replace(p, arrays={n: factor * a for n, a in p.arrays.items()}) for p in held.parts]
            return searched, replace(held, parts=tuple(parts))

        monkeypatch.setattr(drop, "halves", split)

    return by


def test_a_half_that_disagrees_makes_it_step_back(wide, held_harder, pruned):
    path, x, evaluation = wide
    given = {"recipe": "magnitude", "metric": fidelity, "provider": "cpu", "evaluation": evaluation}
    allowed = 0.02 * evaluate(path, evaluation, metric=scale, provider="cpu").value
    plain = compress_to_goal(path, x, max_drop=allowed, **given).report
    held_harder(np.float32(1.4))
    pruned.clear()
    report = compress_to_goal(path, x, max_drop=allowed, **given).report
    assert report.goal.value > plain.goal.value and report.goal.reached <= allowed
    assert any(warning.startswith("stepped back") for warning in report.warnings)
    assert len(report.curve) <= EVALUATIONS
    held_harder(np.float32(1000))
    with pytest.raises(BudgetError, match="but not on the 100 held back"):
        compress_to_goal(path, x, max_drop=allowed, **given)


def test_near_the_dense_model_there_are_shares_to_step_back_to(wide, held_harder):
    """A quarter more than 0.82 was more than everything, and that was the end of it."""
    path, x, evaluation = wide
    given = {"recipe": "magnitude", "metric": fidelity, "provider": "cpu", "evaluation": evaluation}
    allowed = 1e-3 * evaluate(path, evaluation, metric=scale, provider="cpu").value
    plain = compress_to_goal(path, x, max_drop=allowed, **given).report.goal.value
    held_harder(np.float32(1.2))
    stepped = compress_to_goal(path, x, max_drop=allowed, **given).report.goal
    assert 0.8 < plain < stepped.value < 1 and stepped.reached <= allowed


def test_what_cannot_be_promised_is_said(saved, tmp_path):
    path, x, evaluation = saved("mlp")
    few = {name: array[:40] for name, array in evaluation.items()}
    report = compress_to_goal(path, x, evaluation=few, max_drop=0.05, provider="cpu").report
    assert any("20 samples held back cannot tell a drop below 0.16" in said for said in report.warnings)
    with pytest.raises(BudgetError, match=r"--max-drop 0 cannot be met: --ratio 0\.9"):
        given = {"metric": fidelity, "recipe": "magnitude", "provider": "cpu"}
        compress_to_goal(path, x, evaluation=evaluation, max_drop=0, output=tmp_path / "no", **given)
    assert not (tmp_path / "no").exists()
    with pytest.raises(UsageError, match="give it with --eval"):
        compress_to_goal(path, x, max_drop=0.1)
