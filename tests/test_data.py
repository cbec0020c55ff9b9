"""Data: what comes out is what went in, and what does not fit is refused in one line that helps."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from graph_inputs import graph, inputs
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.data import Data, discover, noise, open_data, try_batch, wanted
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.session import Session

IMAGE = "float[batch,3,4,5] image"
RECURRENT = "float[batch,sequence] wave,  int64 rate,  float[2,batch,8] state"


def images(count: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (count, 3, 4, 5)).astype(dtype)


def joined(data: Data, name: str, axis: int = 0) -> np.ndarray:
    return np.concatenate([batch.feeds[name] for batch in data.batches()], axis)


# -- what comes out


@pytest.mark.parametrize("key", ["image", "x", "data", "images", "anything"])
def test_npz_gives_its_samples_in_order_and_again(tmp_path: Path, key: str) -> None:
    labels = np.arange(10)
    np.savez(tmp_path / "d.npz", **{key: images(10), "y": labels})
    data = open_data(tmp_path / "d.npz", inputs(IMAGE), batch_size=4)
    assert (data.count, data.labelled, data.synthetic, data.notes) == (10, True, False, ())
    assert [batch.count for batch in data.batches()] == [4, 4, 2]
    for _ in range(2):
        assert np.array_equal(joined(data, "image"), images(10))
        assert np.array_equal(np.concatenate([b.labels for b in data.batches()]), labels)  # type: ignore[misc]  # all have labels
    assert np.array_equal(data.array("image"), images(10))


@pytest.mark.parametrize("kind", ["npy", "array", "mapping", "feeds", "generator"])
def test_all_kinds_of_source_give_the_same(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "d.npy", images(9))
    source: Any = {
        "npy": tmp_path / "d.npy",
        "array": images(9),
        "mapping": {"image": images(9)},
        "feeds": [{"image": images(9)[i : i + 3]} for i in (0, 3, 6)],
        "generator": ({"image": images(9)[i : i + 1]} for i in range(9)),
    }[kind]
    data = open_data(source, inputs(IMAGE), batch_size=4)
    assert [batch.count for batch in data.batches()] == [4, 4, 1]
    assert np.array_equal(joined(data, "image"), images(9))


def test_feeds_may_differ_in_symbolic_sizes() -> None:
    feeds = [{"a": np.ones((2, n), np.float32), "y": np.array([n, n])} for n in (3, 3, 5)]
    data = open_data(feeds, inputs("float[batch,length] a"), batch_size=3)
    assert [(b.feeds["a"].shape, b.labels.tolist()) for b in data.batches() if b.labels is not None] == [
        ((3, 3), [3, 3, 3]),
        ((1, 3), [3]),
        ((2, 5), [5, 5]),
    ]
    with pytest.raises(DataError, match="differ in shape"):
        data.array("a")


def test_feeds_may_differ_in_dtype() -> None:
    # Concatenated, int64 and uint64 would become float64.
    feeds = [{"a": np.array([2**53 + 1], np.int64)}, {"a": np.array([7], np.uint64)}]
    data = open_data(feeds, inputs("int64[batch] a"))
    assert joined(data, "a").tolist() == [2**53 + 1, 7]


def test_batch_axis_is_the_shared_symbol_and_scalars_are_fed_unchanged() -> None:
    arrays = {
        "wave": np.arange(10.0, dtype=np.float32).reshape(5, 2),
        "rate": np.array(16000),
        "state": np.arange(80, dtype=np.float32).reshape(2, 5, 8),
    }
    data = open_data(arrays, inputs(RECURRENT), batch_size=2)
    assert np.array_equal(joined(data, "wave"), arrays["wave"])
    assert np.array_equal(joined(data, "state", axis=1), arrays["state"])
    assert all(b.feeds["rate"].shape == () and b.feeds["rate"] == 16000 for b in data.batches())


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("float[batch,3] a", [0]),
        ("float[3,4] a", [0]),  # all fixed: axis 0 is a fixed batch
        ("float[n,3] a,  float[3] b", [0, None]),
        ("float[2,batch] a,  float[batch,2] b", [1, 0]),
        ("float[time,batch,3] a", [1]),  # a symbol that says it is the batch wins over axis 0
        ("float[1,3] a,  float[2,1] b,  float b_", [0, None, None]),
        ("float[n,3] a,  float[m,3] b", [0, 0]),
    ],
)
def test_batch_axes(text: str, axes: list[int | None]) -> None:
    assert [want.batch_axis for want in wanted(inputs(text))] == axes


def test_initializers_are_not_asked_for() -> None:
    model = graph("float[n,2] a,  float[2] w")
    weight = model.graph.inputs[1]
    weight.const_value = ir.tensor(np.ones(2, np.float32), name="w")
    model.graph.register_initializer(weight)
    assert [want.name for want in wanted(model.graph.inputs)] == ["a"]


def test_fixed_batch_is_kept_and_the_incomplete_one_dropped_aloud() -> None:
    data = open_data(images(11), inputs("float[4,3,4,5] image"), batch_size=32)
    assert [batch.count for batch in data.batches()] == [4, 4]
    assert np.array_equal(joined(data, "image"), images(11)[:8])
    assert "exactly 4: 3 samples left out" in data.notes[0]
    with pytest.raises(DataError, match="3 samples, but the model takes batches of exactly 4"):
        open_data(images(3), inputs("float[4,3,4,5] image"))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 7), st.integers(0, 3), st.integers(1, 4))
def test_samples_are_distinct_rows_in_order_whatever_the_parts(
    count: int, samples: int, batch_size: int, seed: int, pieces: int
) -> None:
    # Feeds alternate between two lengths, so that they are separate parts; the first column numbers the rows.
    rows = np.array_split(np.arange(count), pieces)
    feeds = [
        {"a": np.repeat(row[:, None], 1 + i % 2, axis=1).astype(np.float32)}
        for i, row in enumerate(rows)
        if len(row)
    ]

    def numbers(how_many: int | None) -> list[float]:
        data = open_data(feeds, wants, samples=how_many, batch_size=batch_size, seed=seed)
        assert all(0 < batch.count <= batch_size for batch in data.batches())
        return [number for batch in data.batches() for number in batch.feeds["a"][:, 0].tolist()]

    wants = inputs("float[batch,length] a")
    drawn = numbers(samples)
    assert drawn == sorted(set(drawn)) and set(drawn) <= set(range(count))
    assert len(drawn) == min(samples, count)
    assert drawn == numbers(samples)
    assert numbers(None) == list(range(count))


def test_seed_draws_and_description_says_so() -> None:
    drawn = [open_data(images(50), inputs(IMAGE), samples=10, seed=seed) for seed in (1, 2)]
    assert not np.array_equal(drawn[0].array("image"), drawn[1].array("image"))
    assert "10 of 50 (drawn by seed 1)" in drawn[0].description


def test_class_names_beside_the_labels_are_not_labels() -> None:
    source = {"x": images(4), "labels": np.array(["cat", "dog"]), "y": np.array([0, 1, 1, 0])}
    data = open_data(source, inputs(IMAGE))
    assert next(data.batches()).labels.tolist() == [0, 1, 1, 0]  # type: ignore[union-attr]  # has labels
    assert data.notes == ("arrays: arrays not used: labels",)


# -- dtypes


@pytest.mark.parametrize(
    ("want", "array"),
    [
        ("float", np.array([0, 255], np.uint8)),
        ("float", np.array([0.1, 3e38], np.float64)),
        ("float", np.array([2**24], np.int64)),
        ("float", np.array([True, False])),
        ("float16", np.array([65504.0], np.float32)),
        ("int32", np.array([-(2**31), 2**31 - 1], np.int64)),
        ("int32", np.array([0, 65535], np.uint16)),
        ("uint8", np.array([0, 255], np.int64)),
        ("bool", np.array([0, 1], np.int64)),
    ],
)
def test_casts_that_keep_every_value_are_silent(want: str, array: np.ndarray) -> None:
    batch = next(open_data(array, inputs(f"{want}[batch] a")).batches())
    assert batch.feeds["a"].dtype == wanted(inputs(f"{want}[batch] a"))[0].dtype
    # float64 to float32 rounds to 24 bits; the integers here are exact, and 2**-23 of them is less than 1
    np.testing.assert_allclose(
        batch.feeds["a"].astype(np.float64), array.astype(np.float64), rtol=2**-23, atol=0
    )


@pytest.mark.parametrize(
    ("want", "array", "message"),
    [
        ("float", np.array([0.0, 1e39]), "at sample 1"),
        ("float", np.array([0, 2**24 + 1]), "int64 values that float32 cannot hold at sample 1"),
        ("float16", np.array([1, 1, 7e4], np.float32), "at sample 2"),
        ("int32", np.array([0, 2**31]), "int64 values that int32 cannot hold at sample 1"),
        ("uint64", np.array([5, -1]), "at sample 1"),
        ("int64", np.array([2**63], np.uint64), "at sample 0"),
        ("int64", np.array([1.0]), "float64 cannot be fed"),
        ("float", np.array(["1"]), "<U1 cannot be fed"),
        ("float", np.array([1j]), "complex128 cannot be fed"),
        ("bool", np.array([0, 2]), "at sample 1"),
    ],
)
def test_casts_that_lose_values_are_refused(want: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(array, inputs(f"{want}[batch] a"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_first_sample_that_is_not_finite_is_named(value: float, dtype: Any) -> None:
    array = np.zeros((9, 3, 4, 5), dtype)
    array[[6, 8], 1, 2, 3] = value
    with pytest.raises(DataError, match="NaN or Inf at sample 6 for the input 'image' float32"):
        open_data(array, inputs(IMAGE))


def test_bad_values_are_found_behind_the_first_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.data.inputs._CHUNK", 120)  # two images at a time
    array = images(9)
    array[7, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="at sample 7"):
        open_data(array, inputs(IMAGE))


def test_a_bad_value_in_an_unbatched_input() -> None:
    source = {"a": np.zeros((3, 2), np.float32), "w": np.array([1, np.nan], np.float32)}
    with pytest.raises(DataError, match="NaN or Inf for the input 'w'"):
        open_data(source, inputs("float[n,2] a,  float[2] w"))


# -- what does not fit


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 4, 5), np.float32), r"no batch axis: for one sample use np.expand_dims\(array, 0\)"),
        (np.zeros((2, 4, 5, 3), np.float32), r"channels last: use array.transpose\(0, 3, 1, 2\)"),
        (
            np.zeros((2, 3, 4, 6), np.float32),
            r"shape \[2, 3, 4, 6\] does not fit the input 'image' float32\[batch,3,4,5",
        ),
        (np.zeros((0, 3, 4, 5), np.float32), "no samples; the model wants 'image'"),
        ([], "no samples"),
        ({"y": np.zeros(3)}, "holds 'y', the model wants 'image' float32"),
        ({"a": images(1), "b": images(1)}, "holds 'a', 'b', the model wants 'image'"),
        ({"x": images(3), "y": np.zeros(2)}, r"3 samples but labels 'y' \[2\]"),
        ({"x": images(3), "y": np.array(7)}, r"3 samples but labels 'y' \[\]"),
        (7, "cannot use int; give a file"),
        ([images(2)], "cannot use ndarray as a feed"),
        ("nothing.npz", "nothing.npz: no such file; give one of .npz, .npy, .csv, or a folder"),
    ],
)
def test_refused_sources(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_data(source, inputs(IMAGE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [{"samples": 0}, {"batch_size": 0}, {"batch_size": -1}, {"seed": -1}])
@pytest.mark.parametrize("source", [None, images(3)])
def test_options_out_of_range(source: Any, option: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"must be [01] or more"):
        open_data(source, inputs(IMAGE), **option)


def test_missing_channel_axis_is_said() -> None:
    with pytest.raises(DataError, match=r"channel axis is missing: use array\[:, None\]"):
        open_data(np.zeros((7, 28, 28), np.uint8), inputs("float[batch,1,28,28] a"))


def test_inputs_that_differ_in_their_number_of_samples() -> None:
    source = {"wave": np.zeros((5, 9), np.float32), "rate": 16000, "state": np.zeros((2, 4, 8), np.float32)}
    with pytest.raises(DataError, match="'wave' 5, 'state' 4"):
        open_data(source, inputs(RECURRENT))


def test_one_array_for_several_inputs() -> None:
    with pytest.raises(DataError, match=r"one array, the model wants 'wave' .*, 'rate' .*, 'state' "):
        open_data(np.zeros((5, 9), np.float32), inputs(RECURRENT))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("content", ["empty", "garbage", "half"])
def test_broken_files(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"d{suffix}"
    (np.savez if suffix == ".npz" else np.save)(path, images(50))
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "garbage": b"\x93" * 500, "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: ") as caught:
        open_data(path, inputs(IMAGE))
    assert "\n" not in str(caught.value)


def test_a_damaged_member_of_a_whole_archive(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, image=images(50))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="the array 'image' cannot be read"):
        open_data(path, inputs(IMAGE))


class _Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("key", ["image", "y"])
def test_nothing_is_ever_unpickled(tmp_path: Path, suffix: str, key: str) -> None:
    path, sprung = tmp_path / f"d{suffix}", tmp_path / "sprung"
    trap = np.array([_Trap(sprung)], dtype=object)
    if suffix == ".npz":
        np.savez(path, **{"image": images(1), key: trap})
    else:
        np.save(path, trap, allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        open_data(path, inputs(IMAGE))
    assert not sprung.exists()


def test_an_archive_larger_than_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, image=np.zeros((1000, 3, 4, 5), np.float32))
    with zipfile.ZipFile(path) as archive:
        assert path.stat().st_size < 10_000 < 240_000 < archive.infolist()[0].file_size
    monkeypatch.setattr("os.sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else 200_000)
    with pytest.raises(DataError, match=r"'image' unpacks to .* GiB of memory"):
        open_data(path, inputs(IMAGE))


def test_inputs_that_are_no_numbers() -> None:
    with pytest.raises(ModelError, match=r"the input 'a' .* is no numeric tensor"):
        open_data({"a": np.array(["x"])}, inputs("string[n] a"))


# -- noise, discovery, the first batch


def test_noise_fits_the_model_and_says_what_it_is() -> None:
    data = noise(inputs(RECURRENT), 40, seed=3, batch_size=16)
    assert data.synthetic and data.description.startswith("data-free: 40 samples")
    assert [batch.count for batch in data.batches()] == [16, 16, 8]
    batch = next(data.batches())
    assert {name: (array.shape, array.dtype.name) for name, array in batch.feeds.items()} == {
        "wave": ((16, 64), "float32"),
        "rate": ((), "int64"),
        "state": ((2, 16, 8), "float32"),
    }
    wave = data.array("wave")
    # 2,560 standard normal draws: five standard errors of the mean, and of the variance
    assert abs(wave.mean()) < 5 / np.sqrt(wave.size) and abs(wave.var() - 1) < 5 * np.sqrt(2 / wave.size)
    assert np.array_equal(wave, noise(inputs(RECURRENT), 40, seed=3).array("wave"))
    assert not np.array_equal(wave, noise(inputs(RECURRENT), 40, seed=4).array("wave"))


@pytest.mark.parametrize(("dtype", "most"), [("int32", 9), ("uint8", 9), ("bool", 1)])
def test_noise_for_integers_is_small_and_not_negative(dtype: str, most: int) -> None:
    drawn = noise(inputs(f"{dtype}[n,100] a")).array("a").astype(int)
    assert (drawn.min(), drawn.max()) == (0, most)


def test_noise_fills_whole_batches_of_a_fixed_size() -> None:
    assert [b.count for b in noise(inputs("float[4,2] a"), 10).batches()] == [4, 4, 4]


def test_no_source_is_noise() -> None:
    assert open_data(None, inputs(IMAGE), samples=7).description.startswith("data-free: 7 samples")


@pytest.mark.parametrize("place", ["beside the model", "beside its folder", "working directory"])
def test_discover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    models.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folder = {"beside the model": models, "beside its folder": tmp_path, "working directory": elsewhere}[
        place
    ]
    (folder / "calibration").mkdir()
    model = models / "net.v2.onnx"
    assert discover(model, "calibration") is None
    (folder / "calibration" / "net.v2.npz").touch()
    assert discover(model, "evaluation") is None
    (folder / "calibration" / "net.v2.eval.npz").touch()
    for kind, name in (("calibration", "net.v2.npz"), ("evaluation", "net.v2.eval.npz")):
        found = discover(model, kind)  # type: ignore[arg-type]  # one of its two literals
        assert found is not None and found.samefile(folder / "calibration" / name)


def test_data_that_the_graph_cannot_take_is_said_to_be_that() -> None:
    text = """<ir_version: 9, opset_import: ["": 18]> g (float[batch,length] a) => (float[batch,2] y)
        <float[5,2] w = {1,2,3,4,5,6,7,8,9,0}> { y = MatMul(a, w) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    session = Session(model, "cpu")
    with pytest.raises(DataError, match=r"they do not run as 'a' \[3, 4\]; check the symbolic sizes"):
        try_batch(session, open_data(np.zeros((3, 4), np.float32), model.graph.inputs))
    with pytest.raises(DataError, match=r"data-free.*give real data with --data"):
        try_batch(session, noise(model.graph.inputs))
    good = np.arange(10, dtype=np.float32).reshape(2, 5)
    outputs = try_batch(session, open_data(good, model.graph.inputs))
    assert outputs["y"].shape == (2, 2)
