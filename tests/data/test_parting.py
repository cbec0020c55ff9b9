"""Parts of data: nothing lost, nothing twice, classes in both, and drawn by the seed."""

import numpy as np
import pytest
from sweep.test_walk import net

from onnxprune.data import open_data
from onnxprune.data.parting import halves, parted
from onnxprune.errors import DataError

MODEL, SHAPE = net("mlp")


def opened(count, labels=None, **given):
    x = np.zeros((count, *SHAPE), np.float32)
    x.reshape(count, -1)[:, 0] = np.arange(count)  # says which sample it is
    arrays = {"x": x} if labels is None else {"x": x, "labels": labels}
    return open_data(arrays, MODEL.graph.inputs, **given)


def numbers(data):
    return np.concatenate([batch.feeds["x"].reshape(batch.count, -1)[:, 0] for batch in data.batches()])


def classes(data):
    return np.concatenate([batch.labels for batch in data.batches()])


@pytest.mark.parametrize("count", [2, 41, 100])
def test_each_sample_is_in_one_of_them(count):
    first, second = halves(opened(count), 0)
    assert abs(first.count - second.count) <= 1
    assert sorted([*numbers(first), *numbers(second)]) == list(range(count))


def test_each_class_is_halved_to_one_sample_and_labels_stay_with_their_samples():
    labels = np.repeat(np.arange(5), [1, 7, 30, 12, 51])
    np.random.default_rng(0).shuffle(labels)
    pair = halves(opened(101, labels), 3)
    counts = [np.bincount(classes(half), minlength=5) for half in pair]
    assert np.abs(counts[0] - counts[1]).max() <= 1
    for half in pair:
        np.testing.assert_array_equal(classes(half), labels[numbers(half).astype(int)])


@pytest.mark.parametrize("labels", [None, np.arange(60) % 3, np.array(["word"] * 60)])
def test_the_seed_decides(labels):
    data = opened(60, labels)
    (one, _), (same, _), (other, _) = halves(data, 1), halves(data, 1), halves(data, 2)
    np.testing.assert_array_equal(numbers(one), numbers(same))
    assert set(numbers(one)) != set(numbers(other))


def test_samples_of_several_shapes_are_halved_together():
    model, shape = net("tokens")
    feeds = [{"x": np.full((3, *shape), index, np.float32)} for index in range(10)]
    pair = halves(open_data(feeds, model.graph.inputs), 0)
    assert [half.count for half in pair] == [15, 15]
    assert "15 of feeds: 30 samples, held back" in pair[1].description


def test_one_sample_cannot_be_halved():
    with pytest.raises(DataError, match="too few to hold half of them back"):
        halves(opened(1), 0)


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.99])
def test_a_share_is_held_back_of_every_class(share):
    labels = np.arange(200) % 4
    left, held = parted(opened(200, labels), share, 0, "trained on")
    assert left.count == 200 - round(200 * share) and left.description.endswith("trained on")
    if held is None:
        assert share == 0
        return
    assert sorted([*numbers(left), *numbers(held)]) == list(range(200))
    counts = np.bincount(classes(held), minlength=4)
    assert counts.max() - counts.min() <= 1


def test_of_nine_samples_no_tenth_is_held_back():
    left, held = parted(opened(9), 0.1, 0, "trained on")
    assert held is None and left.count == 9
