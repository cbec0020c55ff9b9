"""Open data can be sent to another process, which reads files itself."""

import pickle

import numpy as np
import pytest
from tiny import samples, twin_model

from onnxprune.data import Images, open_data
from onnxprune.data.storage import Storage


def _npz(folder):
    np.savez(folder / "x.npz", x=samples((7,), 9), labels=np.arange(9))
    return folder / "x.npz"


def _packed(folder):
    np.savez_compressed(folder / "x.npz", x=samples((7,), 9))
    return folder / "x.npz"


def _shards(folder):
    for number in range(3):
        np.save(folder / f"{number}.npy", samples((7,), 3, seed=number))
    return folder


def _feeds(folder):
    return ({"x": samples((7,), 3, seed=number)} for number in range(3))


def assert_travels(data):
    there = pickle.loads(pickle.dumps(data))
    assert there.description == data.description
    pairs = list(zip(there.batches(), data.batches(), strict=True))
    assert len(pairs) > 1
    for got, want in pairs:
        for name, array in want.feeds.items():
            np.testing.assert_array_equal(got.feeds[name], array)
        assert (got.labels is None) == (want.labels is None)


@pytest.mark.parametrize("make", [_npz, _packed, _shards, _feeds])
def test_arrays_travel(make, tmp_path):
    inputs = twin_model("mlp").graph.inputs
    assert_travels(open_data(make(tmp_path), inputs, batch_size=4, samples=7, seed=3))


def test_files_are_read_where_they_arrive(tmp_path):
    model = twin_model("mlp")
    data = open_data(_npz(tmp_path), model.graph.inputs, batch_size=4)
    size = len(pickle.dumps(data))
    np.savez(tmp_path / "x.npz", x=samples((7,), 9_000), labels=np.arange(9_000))
    many = open_data(tmp_path / "x.npz", model.graph.inputs, batch_size=4)
    # labels, and which rows are meant, 8 bytes each; a sample has 28
    assert len(pickle.dumps(many)) < size + 17 * 9_000


def test_images_travel(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3)).astype(np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{number}.png")
    assert_travels(open_data(Images(tmp_path, "unit"), twin_model("cnn").graph.inputs, batch_size=4))


def test_room_that_is_left_does_not_travel():
    storage = Storage(memory=0)
    kept = storage.keep(np.arange(1000.0))
    assert len(pickle.dumps(storage)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(storage)).keep(kept), kept)
