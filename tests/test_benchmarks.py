"""The benchmarks parse their options and name real cases; their helpers do what they say. No real runs."""

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import BudgetError
from onnxprune.options import RECIPES
from onnxprune.report.schema import Skipped

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = (
    "mnist",
    "cifar",
    "photos",
    "models",
    "packing",
    "units",
    "together",
    "speed",
    "other_tools",
    "max_drop",
    "reproduce.mlprune",
)


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    """`benchmarks` is no part of the package: it is found from the repository's root."""
    monkeypatch.syspath_prepend(ROOT)


def script(name):
    return importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_lists_its_cases(name, monkeypatch, capsys, tmp_path):
    common, module = script("common"), script(name)
    monkeypatch.setattr("sys.argv", [name, "--list", "--results", str(tmp_path)])
    common.run(module.TABLE, module.CASES, pytest.fail, module.__doc__)
    assert len(capsys.readouterr().out.splitlines()) == len(module.CASES)
    assert len({case.key for case in module.CASES}) == len(module.CASES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_case_has_a_model_with_data(name):
    module = script(name)
    known = set(getattr(module, "NETS", script("subjects").SUBJECTS))
    assert {case.model for case in module.CASES} <= known


@pytest.mark.parametrize("name", ["mnist", "cifar", "photos"])
def test_bars_are_on_the_default_recipe_alone(name):
    cases = script(name).CASES
    assert {case.recipe for case in cases if case.bar is not None} == {"default"}
    others = {case.recipe for case in cases} - set(RECIPES)
    assert all(recipe.startswith(("stated:", "magnitude, BN kept")) for recipe in others)


def test_the_bars_are_those_asked_for():
    bars = {case.key: case.bar for name in SCRIPTS for case in script(name).CASES if case.bar is not None}
    assert bars == {
        ("lenet_300_100", 0.08, "default"): 0.4,
        ("lenet_300_100", 0.04, "default"): 1.2,
        ("lenet_5", 0.08, "default"): 0.3,
        ("lenet_5", 0.04, "default"): 0.8,
        ("resnet20_cifar10", 0.25, "default"): 2.0,
        ("resnet56_cifar10", 0.25, "default"): 0.5,
        ("resnet56_cifar10", 0.125, "default"): 2.0,
        ("mobilenetv2_100_224", 0.5, "default"): 1.0,
        ("efficientnet_lite0_224_bn", 0.5, "default"): 1.0,
        ("lenet_5", 0.04, "fp32"): 100_000,
        ("lenet_5", 0.04, "fp16"): 65_000,
        ("resnet56_cifar10", 0.5, "kfac+linear"): 2.7,
        ("resnet20_cifar10", 0.5, "kfac+linear"): 11.0,
        ("resnet56_cifar10", 0.5, "batch 32"): 1.6,
        **{
            (net, ratio, f"{recipe}, seed {seed}"): bar
            for recipe in ("default", "default, shifted")
            for net, bar, ratios in (
                ("lenet_300_100", 0.1, (0.013, 0.01)),
                ("lenet_300_100 of 4 epochs", 0.1, (0.013, 0.01)),
                ("lenet_5", 0.05, (0.005, 0.004)),
                ("cifarnet", 0.2, (0.064, 0.04)),
            )
            for ratio in ratios
            for seed in range(3)
        },
    }


def test_models_covers_every_file(shared):
    assert {case.model for case in script("models").CASES} == {
        path.stem for path in (shared / "models").glob("*.onnx")
    }


def test_options_choose_cases():
    common = script("common")
    cases = [
        common.Case(m, r, k) for m in ("lenet_5", "vgg") for r in (0.04, 0.5) for k in ("default", "wanda")
    ]
    options = common.parse("About.", ["--only", "le*", "--ratio", "0.04", "--recipe", "wanda"])
    assert common.chosen(cases, options) == [common.Case("lenet_5", 0.04, "wanda")]
    assert common.chosen(cases, common.parse("About.", [])) == cases


def test_a_row_replaces_its_own_older_one_and_keeps_the_order_of_the_cases():
    common = script("common")
    cases = [common.Case("a", 0.5), common.Case("b", 0.5), common.Case("c", 0.5)]
    rows = []
    for model, after in (("c", 1), ("gone", 2), ("a", 3), ("c", 4), ("b", 5)):
        row = {"model": model, "ratio": 0.5, "recipe": "default", "after": after}
        rows = common.merged(rows, row, cases)
    assert [(row["model"], row["after"]) for row in rows] == [("a", 3), ("b", 5), ("c", 4), ("gone", 2)]


def test_a_table_is_read_back_and_printed_with_its_verdicts(tmp_path):
    common = script("common")
    table = common.Table("t", "Title", "How.", (common.Column("after", "after", ".2f"),))
    case = common.Case("m", 0.5, bar=1)
    options = argparse.Namespace(seed=3, samples=64)
    good = common.measured(case, options, lambda *_: {"after": 0.123, "ok": True})
    table.write([good], tmp_path)
    assert table.read(tmp_path) == [good]
    environment = json.loads((tmp_path / "t.json").read_text())["rows"][0]["environment"]
    assert environment["seed"] == 3 and environment["samples"] == 64
    text = (tmp_path / "t.md").read_text()
    assert "| m | 0.5 | default | 0.12 | 1 | pass |" in text
    assert "seed 3, 64 samples" in text


def test_a_refusal_is_a_row_that_fails_its_bar_and_a_bug_is_not(tmp_path):
    common = script("common")
    options = argparse.Namespace(seed=0, samples=None)

    def refuse(case, given):
        raise BudgetError("cannot be met")

    row = common.measured(common.Case("m", 0.5, bar=1), options, refuse)
    assert row["error"] == "BudgetError: cannot be met" and row["ok"] is False
    assert common.measured(common.Case("m", 0.5), options, refuse)["ok"] is None
    with pytest.raises(ZeroDivisionError):
        common.measured(common.Case("m", 0.5), options, lambda *_: 1 / 0)


@pytest.mark.parametrize(
    ("loss", "bar", "verdict"),
    [(0.2, 0.3, True), (0.3 + 1e-12, 0.3, True), (0.31, 0.3, False), (None, 0.3, None), (5.0, None, None)],
)
def test_verdicts(loss, bar, verdict):
    assert script("common").within(loss, bar) is verdict


def test_greedy_text_joins_repeats_but_not_across_a_blank():
    classes = np.array([[0, 2, 2, 0, 2, 1, 3], [1, 1, 1, 0, 0, 3, 3]])
    assert script("scores").greedy_text(np.eye(4)[classes], ["a", "b", " "]) == ["bba", "a"]


def test_reasons_are_counted_whatever_node_they_name():
    reasons = [
        "reads 'a' twice",
        "is an integer",
        "reads 'b/c' twice",
        "1 unit stays: so",
        "23 units stays: so",
    ]
    skipped = [Skipped(name=str(place), reason=reason) for place, reason in enumerate(reasons)]
    assert script("models").summary(skipped) == "2 × reads … twice; 2 × units stays: so; 1 × is an integer"


def test_the_baseline_prunes_conv_and_gemm_by_one_threshold_and_nothing_else(tmp_path):
    weights = {
        "k": np.array([[[[4.0]], [[-1.0]]], [[[0.5]], [[6.0]]]], np.float32),
        "scale": np.full(2, 0.01, np.float32),
        "g": np.array([[3.0, -0.2], [0.1, -5.0]], np.float32),
        "b": np.full(2, 0.001, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "b", "b", "scale"], ["n"]),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), source)
    assert script("cifar").prune_by_magnitude(source, 0.5, output) == 0.5
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(output).graph.initializer}
    np.testing.assert_array_equal(after["k"].ravel(), [4, 0, 0, 6])
    np.testing.assert_array_equal(after["g"].ravel(), [3, 0, 0, -5])
    for name in ("scale", "b"):
        np.testing.assert_array_equal(after[name], weights[name])


@pytest.mark.parametrize("name", ["resnet20_cifar10", "ch_PP-OCRv4_rec_infer", "magika_standard_v3_3"])
def test_no_sample_is_in_both_parts(shared, name):
    split = script("subjects").SUBJECTS[name].split(0)
    halves = (split.calibration["x"], split.evaluation["x"])
    ours, theirs = ({sample.tobytes() for sample in half} for half in halves)
    assert ours.isdisjoint(theirs)


def test_synthetic_sound_is_audible_and_the_same_every_time():
    subjects = script("subjects")
    split = subjects.voices(0, frame=576, count=8)
    again = subjects.voices(0, frame=576, count=8)
    np.testing.assert_array_equal(split.calibration["input"], again.calibration["input"])
    assert split.calibration["input"].shape == split.evaluation["input"].shape == (4, 576)
    assert split.calibration["state"].shape == (2, 4, 128) and split.calibration["sr"] == 16000
    loudness = np.abs(subjects.tones(0, count=4).calibration["x"]).max()
    assert 0.05 < loudness < 3  # three tones of amplitude below 0.3, each with harmonics up to 2.3 times that


def test_a_photo_is_cropped_in_the_middle():
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6] = 200
    for size in (4, 2):
        got = script("subjects").cropped(image.fromarray(pixels), 4, size)
        assert got.shape == (size, size, 3) and got.dtype == np.float32
        np.testing.assert_array_equal(got, 200)


def test_grams_are_counted_and_timed(monkeypatch, capsys):
    grams = script("grams")
    monkeypatch.setattr("sys.argv", ["grams", str(ROOT / "models" / "resnet20_cifar10.onnx"), "--count"])
    grams.main()
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    seen = [("1·3", "32×32"), ("1·16", "32×32"), ("1·32", "16×16"), ("1·64", "8×8")]  # groups · channels, map
    assert [(row[2], row[4]) for row in rows] == seen
    assert rows[1][5] == f"{2 * 144**2 * 32 * 32**2 / 1e9:.3f}" and rows[1][10] == "correlation"
    monkeypatch.setattr("sys.argv", ["grams", str(ROOT / "models" / "small_conv.onnx"), "--batch", "1"])
    grams.main()
    for line in capsys.readouterr().out.splitlines()[2:]:
        assert float(line.split("|")[-2]) > 0


def test_metrics_of_their_own_are_one_for_the_dense_model_and_less_for_others():
    own = script("own_metrics")
    rng = np.random.default_rng(0)
    cases = {
        "map_overlap": {"sigmoid": [rng.random((2, 1, 6, 8)), rng.random((1, 1, 6, 8))]},
        "note_overlap": {f"StatefulPartitionedCall:{k}": [rng.random((2, 5, 8))] for k in (1, 2)},
        "speech_agreement": {"output": [rng.random((4, 1))], "stateN": [rng.random((2, 4, 3))]},
    }
    for name, dense in cases.items():
        metric = getattr(own, name)
        assert metric(dense, None, dense) == 1
        half = {key: [array / 2 for array in arrays] for key, arrays in dense.items()}
        assert 0 < metric(half, None, dense) < 1
    # of 0.2 0.8 | 0.5 0.1 the dense model calls two pixels text, and the other one of them and another
    dense = {"y": [np.array([[[[0.2, 0.8], [0.5, 0.1]]]])]}
    assert own.map_overlap({"y": [np.array([[[[0.2, 0.8], [0.1, 0.4]]]])]}, None, dense) == 1 / 3


def test_a_line_counts_if_it_is_read_exactly(monkeypatch):
    own = script("own_metrics")
    monkeypatch.setattr(own, "_characters", lambda: ("a", "b", " "))
    read = np.eye(4)[[[1, 1, 0, 2], [2, 0, 2, 3]]]  # "ab" and "bb "
    labels = [np.array(["ab"]), np.array(["b"])]
    assert own.exact_match({"softmax": [read[:1], read[1:]]}, labels, None) == 0.5
