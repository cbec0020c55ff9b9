"""Figures as people read them."""

import pytest

from onnxprune.report import words
from onnxprune.report.schema import MemoryUse


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (56_077, "56.1 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (2_147_483_648, "2.15 GB"),
        (3e12, "3.00 TB"),
        (None, "?"),
    ],
)
def test_sizes_have_three_digits(value, shown):
    assert words.size(value, "B") == shown


def test_changes_have_their_unit_and_a_sign():
    assert words.change("top1", 0.984, 0.9775) == "−0.65 points"
    assert words.change("agreement", 0.5, 0.75) == "+25.00 points"
    assert words.change("cosine", 1.0, 0.9) == "−0.1"


def test_names_beyond_the_third_are_counted():
    assert words.names(("a", "b", "c")) == "a, b, c"
    assert words.names(("a", "b", "c", "d", "e")) == "a, b, c and 2 more"


def test_memory_says_limit_prediction_and_peak():
    use = MemoryUse(limit=2 << 30, predicted=1500 << 20, peak=1400 << 20, passes=3, run=8, spilled=True)
    assert words.memory(use) == (
        "memory: 1,500 MiB predicted at the most, 1,400 MiB measured, of 2,048 MiB; statistics in 3 passes, "
        "8 samples at once, factors in files"
    )
    once = use.model_copy(update={"passes": 1, "spilled": False})
    assert words.memory(once).endswith("statistics in one pass, 8 samples at once")
