"""Windows: how the kernel of a Conv or of a pooling op walks over space, and padding resolved from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """One entry a spatial axis; negative pads crop."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    @property
    def extents(self) -> list[int]:
        """How far a dilated kernel reaches."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def padding(self) -> list[int] | None:
        """The pads as torch's ops take them, if both sides are equal; None where `pad` has to."""
        return self.begins if self.begins == self.ends and min(self.begins, default=0) >= 0 else None

    @property
    def pool_padding(self) -> list[int] | None:
        """The same for pooling, where torch pads by half of a window at the most."""
        half = [extent // 2 for extent in self.extents]
        small = self.padding is not None and all(p <= h for p, h in zip(self.padding, half, strict=True))
        return self.padding if small else None

    def pad(self, x: Tensor, number: float = 0.0) -> Tensor:
        """`x` with its spatial axes padded."""
        both = zip(reversed(self.begins), reversed(self.ends), strict=True)
        return F.pad(x, [amount for pair in both for amount in pair], value=number)


def window(
    x: Tensor,
    kernel: Sequence[int],
    auto_pad: str,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
) -> Window:
    """The window over `x` with auto_pad resolved."""
    n = len(kernel)
    step, spread = list(strides or [1] * n), list(dilations or [1] * n)
    given = list(pads or [0] * 2 * n) if auto_pad == "NOTSET" else [0] * 2 * n
    plain = Window(list(kernel), step, spread, given[:n], given[n:])
    if auto_pad in ("NOTSET", "VALID"):
        return plain
    totals = [
        max((-(-size // stride) - 1) * stride + extent - size, 0)
        for size, stride, extent in zip(x.shape[2:], step, plain.extents, strict=True)
    ]
    return Window(list(kernel), step, spread, *halves(totals, more_first=auto_pad == "SAME_LOWER"))


def halves(totals: Sequence[int], more_first: bool) -> tuple[list[int], list[int]]:
    """Padding before and after; the odd one comes first when `more_first`."""
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (more, less) if more_first else (less, more)


def fitted(w: Window, x: Tensor) -> Window:
    """`w` with as much more padding at the end as the last window of ceil_mode needs."""
    ends = []
    rows = zip(x.shape[2:], w.extents, w.strides, w.begins, w.ends, strict=True)
    for size, extent, stride, begin, end in rows:
        steps = -(-(size + begin + end - extent) // stride)
        if steps * stride >= size + begin:  # a window in the padding alone does not count
            steps -= 1
        ends.append(max(end, steps * stride + extent - size - begin))
    return Window(w.kernel, w.strides, w.dilations, w.begins, ends)
