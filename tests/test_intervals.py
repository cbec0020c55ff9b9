"""Intervals: against scipy's where there is one, and by their coverage over all outcomes, if not."""

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial

from onnxprune.intervals import paired_drop, resolution, wilson


def hits(both, lost, won, neither):
    """Outcomes of two models: so many samples right in both, only before, only after, in none."""
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return np.array(before), np.array(after)


@pytest.mark.parametrize("right", [0, 1, 37, 99, 100])
def test_a_share_has_wilsons_interval(right):
    want = binomtest(right, 100).proportion_ci(0.95, method="wilson")
    assert wilson(hits(right, 0, 0, 100 - right)[0]) == (want.low, want.high)


@pytest.mark.parametrize("lost", [0, 1, 7, 60, 100])
def test_a_drop_in_one_direction_only_is_a_share(lost):
    """The upper end, the one that matters for a promise, is then Wilson's (Tango 1998, §3)."""
    _, high = paired_drop(*hits(100 - lost, lost, 0, 0))
    assert high == pytest.approx(binomtest(lost, 100).proportion_ci(0.95, method="wilson").high, abs=1e-9)


@pytest.mark.parametrize("counts", [(50, 10, 3, 5), (0, 1, 0, 1), (90, 0, 0, 10), (3, 0, 4, 0)])
def test_the_drop_lies_inside_and_turns_around_with_the_models(counts):
    before, after = hits(*counts)
    low, high = paired_drop(before, after)
    assert -1 <= low <= before.mean() - after.mean() <= high <= 1 and low < high
    assert paired_drop(after, before) == pytest.approx((-high, -low))


@pytest.mark.parametrize("lost, won", [(0.08, 0.03), (0.2, 0.2), (0.2, 0.0), (0.3, 0.05)])
def test_it_covers_the_truth_as_often_as_it_says(lost, won):
    count = 40
    covered = 0.0
    for b in range(count + 1):
        for c in range(count + 1 - b):
            probability = multinomial.pmf([b, c, count - b - c], count, [lost, won, 1 - lost - won])
            if probability > 1e-7:  # the few hundred rarest outcomes weigh less than 1e-4 together
                low, high = paired_drop(*hits(count - b - c, b, c, 0))
                covered += probability * (low <= lost - won <= high)
    # Counts are whole, so that no interval covers exactly 95 %; few discordant samples make it a wide one.
    assert 0.92 <= covered <= 0.99


def test_what_can_be_told_from_nothing_shrinks_with_the_samples():
    assert resolution(1000) == pytest.approx(binomtest(0, 1000).proportion_ci(0.95, method="wilson").high)
    assert resolution(4000) < resolution(1000) < resolution(10)
