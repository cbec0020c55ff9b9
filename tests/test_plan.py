"""Plans: JSON in and out, and nothing but plans."""

import json

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.plan import Plan


def plan():
    rng = np.random.default_rng(0)
    masks = {
        "conv/1": rng.random((2, 3, 5)) < 0.5,
        "fc": np.ones((1, 1, 1), bool),
        "none": np.zeros((1, 4, 8), bool),
    }
    return Plan("f" * 64, {"ratio": 0.1, "exclude": ["a"]}, masks, {"conv/1": 0.25, "fc": 0.75, "none": 0.0})


def assert_equal(one, two):
    assert (one.sha256, one.options, one.importance) == (two.sha256, two.options, two.importance)
    assert list(one.kept) == list(two.kept)
    for name, mask in one.kept.items():
        assert two.kept[name].dtype == bool
        np.testing.assert_array_equal(mask, two.kept[name])


def test_round_trip(tmp_path):
    before = plan()
    assert_equal(before, Plan.from_json(before.to_json()))
    (tmp_path / "plan.json").write_text(before.to_json())
    assert_equal(before, Plan.load(tmp_path / "plan.json"))
    assert Plan.from_json(before.to_json()).to_json() == before.to_json()


def broken(change):
    data = json.loads(plan().to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "no json",
        '"kept"',
        broken(lambda data: data.pop("sha256")),
        broken(lambda data: data.pop("kept")),
        broken(lambda data: data.update(kept=[1])),
        broken(lambda data: data["kept"]["fc"].pop("shape")),
        broken(lambda data: data["kept"]["fc"].update(bits="???")),
        broken(lambda data: data["kept"]["fc"].update(shape=["many"])),
        broken(lambda data: data["kept"]["fc"].update(shape=[-1, 1, 1])),
    ],
)
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(UsageError, match="not an onnxprune plan"):
        Plan.from_json(text)


@pytest.mark.parametrize("change", [lambda bits: bits[:-4], lambda bits: bits + "AAAA"])
def test_a_mask_with_bits_missing_is_refused_not_filled_with_zeros(change):
    text = broken(lambda data: data["kept"]["conv/1"].update(bits=change(data["kept"]["conv/1"]["bits"])))
    with pytest.raises(UsageError, match="not an onnxprune plan"):
        Plan.from_json(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the plan .*absent"):
        Plan.load(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"cannot read the plan .*binary"):
        Plan.load(tmp_path / "binary")


def test_another_model_is_refused():
    plan().require("f" * 64)
    with pytest.raises(UsageError, match=r"this plan is of another model \(sha256 ffff"):
        plan().require("0" * 64)
