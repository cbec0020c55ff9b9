"""Statistics files and their merging: what goes in comes out, and what does not belong is refused."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.numpy
from tiny import data_for, relative, samples, twin_model

import onnxprune
from onnxprune.errors import OutputError, StatisticsError
from onnxprune.statistics import (
    Gathering,
    Gram,
    LayerStatistics,
    Samples,
    Statistics,
    collect,
    load,
    merge,
    save,
)
from onnxprune.statistics.opening import open_statistics

ROOT = Path(__file__).resolve().parents[2]


def made(seed=0, form="gram", gradients=True, **fields):
    rows = np.random.default_rng(seed).standard_normal((2, 5, 4))
    rows[:, :, -1] = 1
    a = Gram(rows.transpose(0, 2, 1) @ rows, 5.0) if form == "gram" else Samples(rows.astype(np.float32), 5.0)
    g = Gram(np.eye(3)[None].repeat(2, 0) * 5 * (seed + 1), 5.0) if gradients else None
    known = {"sha256": "a" * 64, "samples": 5, "loss": "some loss", "average": "mean", "seed": 3}
    return Statistics(**{**known, **fields}, layers={"conv/1": LayerStatistics(a, g, 5.0, 5.0)})


def arrays(statistics):
    for layer in statistics.layers.values():
        yield layer.activations.mean()
        if layer.gradients is not None:
            yield layer.gradients.total


# -- files
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["gram", "samples"])
@pytest.mark.parametrize("gradients", [True, False])
def test_round_trip(tmp_path, form, gradients):
    before = made(form=form, gradients=gradients, blocked={"other": "no gradient: LSTM node 'x'"})
    save(before, tmp_path / "s.safetensors")
    after = load(tmp_path / "s.safetensors")
    for name in ("sha256", "samples", "loss", "average", "seed", "blocked"):
        assert getattr(after, name) == getattr(before, name)
    old, new = before.layers["conv/1"], after.layers["conv/1"]
    assert type(new.activations) is type(old.activations) and (new.rows, new.samples) == (
        old.rows,
        old.samples,
    )
    assert (new.gradients is None) == (not gradients)
    for one, two in zip(arrays(before), arrays(after), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_gathered_statistics_survive_their_file(tmp_path):
    model = twin_model("mlp")
    before = collect(model, "f" * 64, data_for(model, samples((7,), 7)), Gathering(average="exponential"))
    save(before, tmp_path / "s")
    after = load(tmp_path / "s")
    after.require("f" * 64)
    for one, two in zip(before.layers.values(), after.layers.values(), strict=True):
        np.testing.assert_array_equal(one.activations.mean(), two.activations.mean())
        np.testing.assert_array_equal(one.gradients.mean(), two.gradients.mean())
        np.testing.assert_allclose(
            one.mean(), two.mean(), rtol=1e-14
        )  # strides differ, so may the sum's order


_LOADING = """
import sys
from pathlib import Path
from onnxprune.memory import peak
from onnxprune.statistics import load, shelf
shelf._MOST = 2**24
before = peak()
found = load(Path(sys.argv[1]))
print(type(found.layers).__name__, len(found.layers), peak() - before)
"""


def test_a_file_is_not_read_whole_where_it_is_large(tmp_path):
    """Twenty factors of 10 MB: 16 MB are held, one more, what is mapped of it, and its check for NaN."""
    statistics = made()
    for number in range(20):
        factor = Gram(np.zeros((1, 1100, 1100)), 5.0)
        statistics.layers[f"layer {number}"] = LayerStatistics(factor, None, 5.0, 5.0)
    save(statistics, tmp_path / "s")
    command = [sys.executable, "-c", _LOADING, str(tmp_path / "s")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    kind, count, more = found.split()
    assert (kind, count) == ("Shelf", "21") and int(more) < 100e6 < (tmp_path / "s").stat().st_size


def test_another_model_is_refused():
    with pytest.raises(
        StatisticsError, match=r"another model \(sha256 aaaaaaaaaaaa…, this one is bbbb.*calibrate"
    ):
        made().require("b" * 64)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    save(made(), tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(content[: int(share * len(content))])
    with pytest.raises(StatisticsError, match="cannot read statistics from"):
        load(tmp_path / "s")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other"
    with pytest.raises(StatisticsError, match="cannot read statistics from"):
        load(path)
    for content in (b"", b"no such format at all", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(StatisticsError, match="cannot read statistics from"):
            load(path)
    safetensors.numpy.save_file({"w": np.zeros(3)}, path)
    with pytest.raises(StatisticsError, match="no onnxprune statistics; make them with"):
        load(path)
    with pytest.raises(StatisticsError):
        load(tmp_path)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"statistics": "{}", "layers": "{}"},
        {"statistics": "not json", "layers": "{}"},
        {"statistics": '{"strange": 1}', "layers": "{}"},
    ],
)
def test_a_file_with_a_broken_header_is_refused(tmp_path, meta):
    safetensors.numpy.save_file(
        {"0.A": np.zeros(3)}, tmp_path / "s", {"format": "onnxprune-statistics-1", **meta}
    )
    with pytest.raises(StatisticsError, match="cannot read statistics from"):
        load(tmp_path / "s")


HEADER = {"sha256": "a", "samples": 4, "loss": "l", "average": "mean", "seed": 0}
ENTRY = {"form": "gram", "weight": 4, "rows": 4, "samples": 4}


@pytest.mark.parametrize(
    ("header", "entry", "array"),
    [
        ({"sha256": None}, {}, np.eye(3)[None]),
        ({"samples": -1}, {}, np.eye(3)[None]),
        ({"average": "median"}, {}, np.eye(3)[None]),
        ({"blocked": []}, {}, np.eye(3)[None]),
        ({}, {"form": "other"}, np.eye(3)[None]),
        ({}, {"weight": 0}, np.eye(3)[None]),
        ({}, {"rows": float("inf")}, np.eye(3)[None]),
        ({}, {}, np.eye(3)),
        ({}, {}, np.ones((1, 2, 3))),
        ({}, {}, np.ones((1, 3, 3), np.int64)),
    ],
)
def test_values_that_are_not_what_they_should_be_are_refused(tmp_path, header, entry, array):
    meta = {
        "format": "onnxprune-statistics-1",
        "statistics": json.dumps(HEADER | header),
        "layers": json.dumps({"a": ENTRY | entry}),
    }
    safetensors.numpy.save_file({"0.A": array}, tmp_path / "s", meta)
    with pytest.raises(StatisticsError, match="cannot read statistics from") as error:
        load(tmp_path / "s")
    assert "\n" not in str(error.value) and "make them again with" in str(error.value)


def test_statistics_of_layers_of_another_size_are_refused():
    model = onnxprune.load(ir.to_proto(twin_model("mlp")))
    known = onnxprune.calibrate(model, samples((7,), 8))
    layer = known.layers["one"]
    known.layers["one"] = LayerStatistics(Gram(np.eye(3)[None], 1.0), layer.gradients, 8, 8)
    with pytest.raises(
        StatisticsError, match="of layer 'one' are not of its size; run `onnxprune calibrate`"
    ):
        open_statistics(model, [known])


def test_squares_that_float32_cannot_hold_are_refused(tmp_path):
    statistics = made()
    statistics.layers["conv/1"].gradients.total[0, 0, 0] = 1e60
    save(statistics, tmp_path / "s")
    with pytest.raises(StatisticsError, match="layer 'conv/1' has NaN or Inf"):
        load(tmp_path / "s")


def test_nan_in_a_file_names_the_layer(tmp_path):
    statistics = made()
    statistics.layers["conv/1"].gradients.total[0, 0, 0] = np.nan
    save(statistics, tmp_path / "s")
    with pytest.raises(StatisticsError, match="layer 'conv/1' has NaN or Inf"):
        load(tmp_path / "s")


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "absent" / "s", tmp_path / "file" / "s"):
        with pytest.raises(OutputError, match="the statistics cannot be written"):
            save(made(), place)


# -- merging
# ----------------------------------------------------------------------------------------------------


# Short shards keep their rows, and others are multiplied together in float32: rounding of two dozen products.
MULTIPLIED = 1e-6


@pytest.mark.parametrize("name, shape", [("cnn", (3, 9, 8)), ("mlp", (7,))])
@pytest.mark.parametrize("cuts", [(8,), (4, 16, 20)])
def test_shards_are_the_whole(name, shape, cuts):
    """Labels are given: sampled ones depend on the batch's number in its shard."""
    model, x = twin_model(name), samples(shape, 24)
    labels = np.arange(24) % 4
    how = Gathering(labels=True)
    whole = collect(model, "", data_for(model, {"x": x, "labels": labels}), how)
    shards = [
        collect(model, "", data_for(model, {"x": part, "labels": own}), how)
        for part, own in zip(np.split(x, cuts), np.split(labels, cuts), strict=True)
    ]
    merged = merge(shards)
    assert merged.samples == 24
    for layer, known in whole.layers.items():
        other = merged.layers[layer]
        assert (other.rows, other.samples) == (known.rows, known.samples)
        assert relative(other.activations.mean(), known.activations.mean()) < MULTIPLIED
        assert relative(other.mean(), known.mean()) < MULTIPLIED
        assert relative(other.gradients.total, known.gradients.total) < MULTIPLIED


def test_merging_leaves_the_parts_as_they_are():
    one, two = made(0), made(1)
    before = copy.deepcopy((list(arrays(one)), list(arrays(two))))
    merge([one, two])
    for old, new in zip(before, (arrays(one), arrays(two)), strict=True):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)
    assert one.samples == 5


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sha256": "c" * 64}, "another model"),
        ({"loss": "another"}, "one and the same loss"),
        ({"average": "exponential"}, "only plain means"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(fields, message):
    with pytest.raises(StatisticsError, match=message):
        merge([made(), made(**fields)])


def test_exponential_averages_have_an_order_and_are_not_merged():
    with pytest.raises(StatisticsError, match="only plain means"):
        merge([made(average="exponential"), made(average="exponential")])


def test_parts_with_other_layers_or_without_gradients_are_refused():
    other = made()
    other.layers = {"another": other.layers["conv/1"]}
    with pytest.raises(StatisticsError, match="different layers"):
        merge([made(), other])
    with pytest.raises(StatisticsError, match="different form"):
        merge([made(), made(gradients=False)])
