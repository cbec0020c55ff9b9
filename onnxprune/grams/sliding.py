"""What a Conv of stride 1 reads: sizes that are known before anything runs.

Patch entry (channel, offset a) at position p is the padded input's pixel p + a · dilation, on every axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnxprune.im2col import Window


@dataclass(frozen=True)
class Sliding:
    """Sizes of one Conv of stride 1; one entry an axis in `kernel`, `dilations`, `begins`, `ends`, `sizes`.

    `channels` are those of one group, `begins` and `ends` the padding, `sizes` the input's without it.
    """

    groups: int
    channels: int
    kernel: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, window: Window, shape: ir.Shape | None) -> Sliding | None:
        """That of `window` over an input of `shape`; None for another op, a stride, or an unknown size."""
        given, rank = window.node.attributes, len(window.kernel)
        sizes = [size for size in list(shape or ())[2:] if isinstance(size, int)]
        strides = given.get_ints("strides") or [1]
        if window.node.op_type != "Conv" or len(sizes) != rank or any(step != 1 for step in strides):
            return None
        dilations = tuple(given.get_ints("dilations") or [1] * rank)
        reach = [(kernel - 1) * step for kernel, step in zip(window.kernel, dilations, strict=True)]
        begins, ends = _padding(window.node, reach)
        found = cls(
            window.groups,
            window.channels // window.groups,
            window.kernel,
            dilations,
            begins,
            ends,
            tuple(sizes),
        )
        return found if min(found.outputs) > 0 and min((*begins, *ends)) >= 0 else None

    @property
    def width(self) -> int:
        """d_in, entries of a patch."""
        return self.channels * prod(self.kernel)

    @property
    def padded(self) -> tuple[int, ...]:
        """Sizes of the input with its padding."""
        return tuple(map(sum, zip(self.begins, self.sizes, self.ends, strict=True)))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Sizes of the output: the positions."""
        axes = zip(self.padded, self.kernel, self.dilations, strict=True)
        return tuple(size - (kernel - 1) * step for size, kernel, step in axes)


def _padding(node: ir.Node, reach: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is padded before and behind each axis; `reach` is how far a patch goes beyond its first pixel."""
    given = node.attributes
    way = given.get_string("auto_pad", "NOTSET")
    if way in ("SAME_UPPER", "SAME_LOWER"):  # at stride 1 the output is as large as the input
        less, more = tuple(step // 2 for step in reach), tuple(step - step // 2 for step in reach)
        return (less, more) if way == "SAME_UPPER" else (more, less)
    none = [0] * (2 * len(reach))
    pads = none if way == "VALID" else list(given.get_ints("pads") or none)
    return tuple(pads[: len(reach)]), tuple(pads[len(reach) :])
