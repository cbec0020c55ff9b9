"""Ways to spoil a file: its bytes, the fields of a message, the values of JSON."""

from __future__ import annotations

import copy
import struct
from typing import Any

from hypothesis import strategies as st

ODD_NUMBERS = [0, 1, -1, 2, 7, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)]
ODD_VALUES = [
    None,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    1.5,
    float("nan"),
    float("inf"),
    -1,
    0,
    2**70,
    "../x",
    "\0",
    ["a"],
    {"a": 1},
]


@st.composite
def spoiled(draw: st.DrawFn, wholes: list[bytes]) -> bytes:
    """One of `wholes`, cut off, with bits flipped, pieces overwritten, moved or of another file."""
    content = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        size = draw(st.integers(1, 64))
        match draw(st.integers(0, 6)):
            case 0:
                del content[at:]
            case 1 if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                content[at : at + size] = draw(st.binary(max_size=64))
            case 3:
                content[at : at + size] = bytes([draw(st.sampled_from([0, 127, 128, 255]))]) * size
            case 4:
                other = draw(st.sampled_from(wholes))
                start = draw(st.integers(0, max(0, len(other) - 1)))
                content[at : at + size] = other[start : start + draw(st.integers(1, 256))]
            case 5:
                content[at:at] = content[at : at + size]
            case 6:
                content[at : at + 8] = struct.pack("<q", draw(st.sampled_from(ODD_NUMBERS)))
    return bytes(content)


@st.composite
def altered(draw: st.DrawFn, record: Any, times: int = 3) -> Any:
    """A copy of a JSON value in which some values are others, or gone."""
    record = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, times))):
        holder, key = record, None
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = holder[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                holder = inner
                continue
            break
        if key is None:
            continue
        if draw(st.integers(0, 4)) == 0:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES) | st.sampled_from(ODD_NUMBERS)))
    return record
