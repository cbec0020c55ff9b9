"""Costs from shapes: counted by hand, and which way they choose."""

import pytest

from onnxprune.grams import Correlation, Sliding, choose
from onnxprune.grams.cost import correlation_cost, direct_cost


def conv(channels, kernel, size, groups=1, dilation=1):
    """A square convolution that keeps the size of its map."""
    pad = (kernel - 1) * dilation // 2
    pairs = ((value, value) for value in (kernel, dilation, pad, pad, size))
    return Sliding(groups, channels // groups, *pairs)


@pytest.mark.parametrize(
    "sliding, way",
    [
        (conv(64, 1, 56), "direct"),
        (conv(512, 1, 7), "direct"),
        (conv(16, 3, 32), "correlation"),
        (conv(64, 3, 8), "correlation"),
        (conv(64, 3, 56), "correlation"),
        (conv(256, 3, 14), "correlation"),
        (conv(64, 5, 28), "correlation"),
        (conv(64, 3, 28, dilation=2), "correlation"),
        (conv(16, 3, 2), "correlation"),
        (conv(64, 3, 2), "correlation"),
        (conv(64, 3, 1), "correlation"),
        (conv(96, 3, 28, groups=96), "direct"),
        (conv(64, 3, 28, groups=8), "correlation"),
        (conv(256, 3, 28, groups=4), "correlation"),
        (conv(32, 21, 64), "direct"),
    ],
)
def test_the_cheaper_way(sliding, way):
    choice = choose(sliding, 32)
    assert choice.way == way
    totals = {name: cost.total for name, cost in choice.costs.items()}
    assert way == "direct" or totals["correlation"] < totals["direct"]


def test_operations_are_those_of_the_products():
    sliding = conv(16, 3, 32)
    direct, correlation = direct_cost(sliding, 10), Correlation(sliding)
    rows, width = 10 * 32 * 32, 144
    assert direct.operations == 2 * rows * width * width + 2 * rows * width * 9
    assert direct.bytes == 4 * (4 * rows * width + width * width) and direct.products == 1
    found = correlation_cost(sliding, correlation, 10)
    whole, border = 3 * 16 * 5 * 16 * 32 * 32, correlation.pixels * 16 * 16
    assert found.operations == 2 * 10 * (whole + border)
    assert found.products == 1 + 16  # of the 29, 13 are one product


def test_wide_rows_are_multiplied_in_halves():
    narrow, wide = (direct_cost(conv(channels, 1, 8), 1).operations for channels in (128, 1024))
    assert wide == narrow * 8**2 * (1 + 1 / 8) / 2


def test_a_small_batch_is_not_worth_the_products():
    assert [choose(conv(16, 3, 8), samples).way for samples in (1, 64)] == ["direct", "correlation"]
