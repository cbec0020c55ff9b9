"""The integer parameters of a Pad, as whoever cuts a unit reads them."""

import numpy as np
import pytest

from onnxprune.units.moving import pads
from units.nets import parsed


def amounts(call, **constants):
    arrays = {name: np.array(numbers, np.int64) for name, numbers in constants.items()}
    text = f"net (float[n,3,4] x, int64[6] late) => (float[p,q,r] y) {{ y = {call} }}"
    (node,) = parsed(text, **arrays).graph
    return pads(node, 3)


@pytest.mark.parametrize(
    "call, constants, want",
    [
        ("Pad(x, p)", {"p": [0, 1, 2, 3, 4, 5]}, {0: (0, 3), 1: (1, 4), 2: (2, 5)}),
        ("Pad(x, p, , a)", {"p": [1, 2, 3, -4], "a": [2, 0]}, {2: (1, 3), 0: (2, -4)}),
        ("Pad(x, p, , a)", {"p": [1, 2], "a": [-2]}, {1: (1, 2)}),
        ("Pad(x, late)", {}, None),
    ],
)
def test_pads_by_axis(call, constants, want):
    assert amounts(call, **constants) == want
