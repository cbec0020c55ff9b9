"""Few counts for many weights: they count what they say, and survive JSON as one text each."""

import json

import numpy as np
import pytest

from onnxprune.report import bins
from onnxprune.report.bins import SIDE, VALUES, histogram, saliency_map
from onnxprune.report.schema import CompressionReport
from report.records import COMPRESSION


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_histograms_count_every_weight_but_zeros(rng):
    before = rng.standard_normal((20, 300))
    after = np.where(np.abs(before) > 1, 3 * before, 0.0)
    found = histogram(before, after)
    assert sum(found.before) == before.size and sum(found.after) == np.count_nonzero(after)
    assert len(found.before) == len(found.after) == VALUES
    edges = np.linspace(-found.limit, found.limit, VALUES + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    assert found.before == tuple(np.histogram(before, edges)[0])
    assert found.limit == pytest.approx(np.quantile(np.abs(after[after != 0]), 0.999))
    assert found.after[VALUES // 2] == 0 < found.before[VALUES // 2]  # nothing small is left


def test_histograms_of_what_has_none(rng):
    assert histogram(np.zeros((2, 3)), np.zeros(0)) is None
    gone = histogram(rng.standard_normal(50), np.zeros(0))
    assert sum(gone.before) == 50 and gone.after == (0,) * VALUES
    odd = histogram(np.array([np.nan, np.inf, 1.0, 0.0]), np.array([-1.0]))
    assert sum(odd.before) == sum(odd.after) == 1


def counted(layers, found):
    """The same counts, weight by weight."""
    counts = np.zeros((2, SIDE, SIDE), dtype=int)
    for weights, scores, kept in layers:
        for weight, score, stays in zip(weights.flat, scores.flat, kept.flat, strict=True):
            if weight == 0 or score == 0:
                continue
            places = []
            for value, (low, high) in ((score, found.importance), (abs(weight), found.magnitude)):
                place = int(np.floor(SIDE * (np.log10(value) - low) / (high - low)))
                places.append(min(max(place, 0), SIDE - 1))
            counts[0 if stays else 1, places[0], places[1]] += 1
    return counts


@pytest.mark.parametrize("at_once", [7, 1 << 20])
def test_maps_count_every_weight_that_is_worth_something(rng, monkeypatch, at_once):
    monkeypatch.setattr(bins, "_AT_ONCE", at_once)
    layers = []
    for shape in ((2, 5, 9), (1, 3, 40)):
        weights = rng.standard_normal(shape)
        weights[0, 0, :4] = 0
        scores = weights**2 * rng.uniform(0.5, 2, shape)
        layers.append((weights, scores, scores > 0.3))
    found = saliency_map(layers)
    want = counted(layers, found)
    assert found.kept == tuple(want[0].ravel()) and found.pruned == tuple(want[1].ravel())
    assert sum(found.kept) == sum(int(kept.sum()) for _, _, kept in layers)
    assert sum(found.kept) + sum(found.pruned) == 90 + 120 - 8
    assert found.importance[1] == np.log10(max(scores.max() for _, scores, _ in layers))


def test_maps_of_what_has_none():
    nothing = np.zeros((1, 2, 2))
    assert saliency_map([]) is None and saliency_map([(nothing, nothing, nothing > 0)]) is None
    same = np.full((1, 2, 2), 0.5)
    found = saliency_map([(same, same, same > 0)])
    assert sum(found.kept) == 4 and found.magnitude[0] < np.log10(0.5) < found.magnitude[1]


def test_long_rows_are_one_text_in_json():
    text = COMPRESSION.model_dump_json(indent=2)
    layer = json.loads(text)["layers"][0]
    assert layer["histogram"] == {"limit": 0.5, "before": "1 20 300 20 2", "after": "1 20 0 20 2"}
    assert CompressionReport.model_validate_json(text) == COMPRESSION
    assert CompressionReport.model_validate(COMPRESSION.model_dump()) == COMPRESSION
