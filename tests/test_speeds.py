"""Fast widths: the choice on invented tables, and that measuring measures."""

import numpy as np
from sweep.test_walk import net

from onnxprune.speeds import WIDTHS, SpeedTable, measure


def table(block: int) -> SpeedTable:
    """A machine that computes whole blocks of channels: input and output, and some overhead."""
    return SpeedTable({width: 1e-6 * (100 + (-(-width // block) * block) ** 2) for width in WIDTHS})


def test_blocks_of_eight_are_found_and_no_larger_ones():
    for size in (16, 32, 64, 320):
        assert table(8).step(size) == 8


def test_blocks_of_sixteen_are_found_where_the_family_has_more():
    for size in (32, 64, 320):
        assert table(16).step(size) == 16


def test_where_every_width_is_as_good_nothing_is_rounded():
    """Wider layers use a machine better; that is no reason to round up."""
    even = SpeedTable({width: 1e-6 * (50 * width + width**2) for width in WIDTHS})
    assert [even.step(size) for size in (5, 16, 64, 1000)] == [1, 1, 1, 1]


def test_measuring_gives_a_time_for_every_width(monkeypatch):
    monkeypatch.setattr("onnxprune.speeds._SECONDS", 0.0)
    for name in ("residual", "mlp"):
        seconds = measure(net(name)[0], "cpu").seconds
        assert list(seconds) == list(WIDTHS) and all(0 < s < np.inf for s in seconds.values())
