"""Fast widths: the choice on invented tables, and that measuring measures."""

import numpy as np
import pytest
from sweep.test_walk import net

from onnxprune.speeds import WIDTHS, SpeedTable, measure


def table(block: int) -> SpeedTable:
    """A machine that computes whole blocks of channels, and has some overhead."""
    return SpeedTable({width: 1e-6 * (5 + -(-width // block) * block) for width in WIDTHS})


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("size", [16, 32, 64, 320])
def test_blocks_are_found_and_nothing_between_them(block, size):
    assert table(block).useful(size) == [width for width in range(1, size + 1) if width % block == 0]


def test_a_family_below_one_block_gains_nothing_by_any_number():
    assert table(16).useful(12) == [12]


def test_units_of_several_channels_are_counted_in_channels():
    assert table(16).useful(8, channels=8) == [2, 4, 6, 8]


def test_where_every_width_is_as_good_nothing_is_rounded():
    """Wider layers use a machine better; that is no reason to round up."""
    even = SpeedTable({width: 1e-6 * (50 * width + width**2) for width in WIDTHS})
    known = [width for width in WIDTHS if width <= 40]
    assert even.useful(40) == known


def test_a_width_slower_than_a_wider_one_is_of_no_use():
    slow = {20: 33e-6, 28: 60e-6}
    odd = SpeedTable({width: slow.get(width, width * 1e-6) for width in WIDTHS})
    assert not {20, 28} & set(odd.useful(64))


def test_beyond_the_table_time_goes_on_at_its_slope():
    assert table(8).time(128) == pytest.approx(table(8).time(64) + 64)
    assert table(8).time(72) == pytest.approx(table(8).time(40) + 32)


def test_measuring_gives_a_time_for_every_width(monkeypatch):
    monkeypatch.setattr("onnxprune.speeds._SECONDS", 0.0)
    for name in ("residual", "mlp"):
        seconds = measure(net(name)[0], "cpu").seconds
        assert list(seconds) == list(WIDTHS) and all(0 < s < np.inf for s in seconds.values())
