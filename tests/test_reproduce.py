"""The reproduced experiments measure what they say, and their tables say what was measured."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from onnxprune import compress
from onnxprune.evaluate import evaluate

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 60


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    """`benchmarks` is no part of the package: it is found from the repository's root."""
    monkeypatch.syspath_prepend(ROOT)


def script(name):
    return importlib.import_module(f"benchmarks.reproduce.{name}")


def arrays(path):
    with np.load(path) as file:
        return {"input": file["input"][:IMAGES], "labels": file["labels"][:IMAGES]}


@pytest.fixture
def network(lenet_5):
    penalties = script("penalties")
    groups = {"all": None, "first": ("conv1.weight",), "second": ("conv2.weight",), "dense": ("fc1.weight",)}
    folder = ROOT / "calibration"
    data = arrays(folder / "lenet_5.npz"), arrays(folder / "lenet_5.eval.npz")
    return penalties.Network(lenet_5, *data, groups, 0)


@pytest.mark.parametrize("replace", ["zero", "mean"])
@pytest.mark.parametrize("layers", ["first", "second", "dense", "all"])
def test_a_penalty_is_that_of_the_file_the_command_line_would_write(network, lenet_5, layers, replace):
    penalties, folder = script("penalties"), ROOT / "calibration"
    setting, method = penalties.Setting(layers, 0.3), penalties.Method("abs_rs", replace)
    [(_, _, _, got)] = network.penalties([setting], [method])
    others = [name for group in network.groups.values() if group for name in group]
    spared = [name for name in others if network.groups[layers] and name not in network.groups[layers]]
    data = arrays(folder / "lenet_5.npz")
    result = compress(
        lenet_5,
        data,
        recipe="mean-replacement",
        units=0.3,
        score="abs_rs",
        replace=replace,
        units_of=dict.fromkeys(spared, 0.0),
        seed=0,
    )
    test = arrays(folder / "lenet_5.eval.npz")
    for images, penalty in ((data, got.train), (test, got.test)):
        want = evaluate(result.model, images).values["loss"] - evaluate(lenet_5, images).values["loss"]
        assert abs(want) > 1e-5  # else nothing was measured
        # float32 in another order and in other batches; losses are of order 1
        assert penalty == pytest.approx(want, abs=1e-5)


def test_random_units_were_the_same_at_every_moment_of_training(network, lenet_5):
    penalties = script("penalties")
    data = arrays(ROOT / "calibration" / "lenet_5.npz")
    later = penalties.Network(lenet_5, data, None, network.groups, 0, 391)
    setting, method = penalties.Setting("second", 0.5), penalties.Method("rand", "zero")
    one, other = (set(each.cut(setting, method).units().tolist()) for each in (network, later))
    assert len(one) == len(other) and one != other


def test_random_units_differ_between_settings_and_not_between_replacements(network):
    penalties = script("penalties")
    setting = penalties.Setting("second", 0.5)
    one, again, other = (
        set(network.cut(setting, penalties.Method("rand", replace), draw).units().tolist())
        for replace, draw in (("zero", 0), ("mean", 0), ("zero", 1))
    )
    assert one == again and one != other


def test_settings_in_which_no_unit_goes_are_left_out(network):
    penalties = script("penalties")
    settings = [penalties.Setting("first", 0.01), penalties.Setting("first", 1)]  # of 20 units
    found = list(network.penalties(settings, [penalties.Method("norm", "zero")]))
    assert [(setting.amount, penalty.removed) for setting, _, _, penalty in found] == [(1, 1)]


def measured(values, seed=0):
    """Measurements from penalties of every method, a dict each; what is missing is 1."""
    module = script("analysis")
    return {
        module.Key(seed, step, "all", 0.1): {m: each.get((m.score, m.replace), 1.0) for m in module.PAPER}
        for step, each in enumerate(values)
    }


def test_a_profile_counts_measurements_below_the_threshold():
    module = script("analysis")
    values = [{("norm", "mean"): 0.0, ("rs", "zero"): 3.0}, {("norm", "mean"): 2.0, ("rs", "zero"): 0.0}]
    values.append({})  # all equal: says nothing, and is left out
    found = measured(values)
    norm = script("penalties").Method("norm", "mean")
    # normalised by least and largest: 0 of 0…3, then 2 of 0…2
    np.testing.assert_allclose(module.normalised(found, norm), [0, 1])
    np.testing.assert_allclose(module.profile(found, norm, np.array([0.0, 0.5, 1.0])), [0.5, 0.5, 1])
    assert module.area(found, norm) == 0.5


def test_differences_too_small_for_float32_are_equal():
    shares = script("analysis").shares(np.array([-1.0, -1e-8, 1e-8, 0.5]))
    assert shares == (0.25, 0.5, 0.25)


def test_the_papers_findings_hold_where_they_do_and_not_where_they_do_not():
    module = script("mean_replacement")
    order = ("abs_mrs", "abs_rs", "norm", "rand", "mrs", "rs")
    as_published = {(score, "zero"): 1.0 + place for place, score in enumerate(order)}
    as_published |= {(score, "mean"): 0.5 + place for place, score in enumerate(order)}
    claims = module.claims()
    assert len(claims) == 16
    assert all(claim(measured([as_published])) for claim in claims.values())
    reversed_ = {method: 10 - penalty for method, penalty in as_published.items()}
    assert not any(claim(measured([reversed_])) for claim in claims.values())


def test_mean_replacement_must_win_more_often_and_on_average():
    module = script("mean_replacement")
    claim = next(claim for text, claim in module.claims().items() if "of norm" in text)
    better, worse = {("norm", "mean"): 0.9}, {("norm", "mean"): 2.0}
    assert claim(measured([better]))
    assert not claim(measured([better, better, worse]))  # more often, but not on average


def test_chosen_units_add_up_over_training():
    pytest.importorskip("matplotlib")
    figures = script("figures")
    followed = {"part": "course", "layers": "mid conv", "replace": "mean", "score": "rs"}
    rows = [
        {**followed, "seed": seed, "step": step, "units": units}
        for seed, step, units in (("0", "10", "1 2"), ("0", "20", "2 3"), ("1", "10", "5"), ("1", "20", "5"))
    ]
    steps, curve = figures.selected(rows, "rs", 0, units=4)
    assert steps == [10, 20]
    np.testing.assert_allclose(curve, [(2 / 4 + 1 / 4) / 2, (3 / 4 + 1 / 4) / 2])
    steps, curve = figures.selected(rows, "rs", 20, units=4)
    assert steps == [20] and curve == [(2 / 4 + 1 / 4) / 2]


def test_rows_are_read_back_as_written(tmp_path):
    pytest.importorskip("PIL")
    measure = script("measure")
    path = tmp_path / "results" / "penalties.csv"
    row = ("paper", "0", "391", "all", "0.1", "rs", "mean", 3, "1.2", "0.5", "1.3", "0.25", "")
    measure.append(path, [row])
    measure.append(path, [row])
    assert measure.read(path) == [dict(zip(measure.COLUMNS, map(str, row), strict=True))] * 2
    assert measure.read(tmp_path / "none.csv") == []


def test_networks_of_others_are_averaged_over_seeds():
    pytest.importorskip("PIL")
    rows = [
        {"part": "net", "amount": "0.1", "score": "rs", "replace": replace, "train": str(penalty)}
        for replace, penalty in (("zero", 1.0), ("mean", 0.5), ("zero", 2.0), ("mean", 2.5))
    ]
    [row] = script("shared_networks").table(rows, "train")
    assert (row["zero"], row["mean"], row["lower"]) == (1.5, 1.5, "1 of 2")


def test_no_step_of_retraining_changes_nothing_and_some_steps_lower_the_loss(network):
    torch = pytest.importorskip("torch")
    pytest.importorskip("PIL")
    pytest.importorskip("onnxprune.finetune")
    retraining, penalties = script("retraining"), script("penalties")
    cut = network.cut(penalties.Setting("all", 0.5), penalties.Method("norm", "zero"))
    model = network.without(cut, "zero")
    x, y = (torch.from_numpy(array) for array in arrays(ROOT / "calibration" / "lenet_5.npz").values())
    before, after = retraining.retrained(model, [(x, y)] * 20, [0, 20], network)
    penalty = network.penalty(cut, "zero")
    # torch and onnxruntime add float32 in another order; losses are of order 1
    assert before == pytest.approx(penalty.train + network.before[0], abs=1e-5)
    assert after < before
