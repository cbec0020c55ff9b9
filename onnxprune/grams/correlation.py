"""The gram of a stride-1 Conv's patches from products of shifted images, exact at every border.

    products    [groups, number, channels, channels]    one a piece (see `pieces`) and a difference of offsets
    gram        [groups, d_in, d_in]                    the order of `layers`: channels slowest

Differences of opposite sign give transposed blocks, so only half of them are multiplied: for a k×k kernel
(2k−1)²/2 products a pixel instead of the k⁴ of patches. Products are sums over samples and positions like the
gram itself; they may be added over batches first, and are put together once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import chain, product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.grams.pieces import Cut, Piece, cuts
from onnxprune.grams.sliding import Sliding

Array = npt.NDArray[Any]
Shift = tuple[int, ...]
Product = tuple[Shift, tuple[Piece, ...]]

# Products of about one length are one batched MatMul: shorter ones are filled up with zeros, but not by much,
# and both sides of a batch together hold less than the patches would.
_FILLED = 0.75
_MOST_MAPS = 4


class Correlation:
    """The products of one `Sliding`, in batches, in the order in which they are emitted: longest first."""

    def __init__(self, sliding: Sliding) -> None:
        self._sliding = sliding
        axes = zip(sliding.kernel, sliding.dilations, sliding.outputs, strict=True)
        self._cuts = [cuts(*axis) for axis in axes]
        self._batches: list[list[Product]] = []
        for entry in sorted(self._products(), key=_length, reverse=True):
            last = self._batches[-1] if self._batches else []
            longest = _length(last[0]) if last else 0
            fits = _length(entry) >= _FILLED * longest
            if last and fits and (len(last) + 1) * longest <= _MOST_MAPS * self.positions:
                last.append(entry)
            else:
                self._batches.append([entry])

    @property
    def number(self) -> int:
        """How many products there are."""
        return sum(map(len, self._batches))

    @property
    def pixels(self) -> int:
        """Over how many pixels they run, all together."""
        return sum(len(batch) * _length(batch[0]) for batch in self._batches)

    @property
    def width(self) -> int:
        """d_in, entries of a patch."""
        return self._sliding.width

    @property
    def positions(self) -> int:
        """Rows a sample."""
        return prod(self._sliding.outputs)

    def emit(self, op: Emitter, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emit the products of the Conv's input `value` [N, channels, …] and its patches' sum [groups, d_in].

        Only Gather, MatMul and sums: a Conv would round the sums on GPUs that multiply in TF32.
        """
        sliding = self._sliding
        groups, channels = sliding.groups, sliding.channels
        # one more pixel along the first axis, behind all others: the one that fills up is zero
        ends = (sliding.ends[0] + 1, *sliding.ends[1:])
        value = op.Pad(value, op.ints(0, 0, *sliding.begins, 0, 0, *ends))
        image = op.Reshape(value, op.ints(0, groups, channels, -1))
        image = op.Transpose(image, perm=[3, 0, 1, 2])  # a pixel is a row of samples and channels
        if groups > 1:  # one axis at a time is many times faster in onnxruntime
            image = op.Transpose(image, perm=[2, 0, 1, 3])
        else:
            image = op.Unsqueeze(op.Squeeze(image, op.ints(2)), op.ints(0))
        parts = []
        for batch in self._batches:
            shape = op.ints(groups, len(batch), -1, channels)
            left, right = (
                op.Reshape(op.Gather(image, op.constant(pixels), axis=1), shape)
                for pixels in self._sides(batch)
            )
            parts.append(op.MatMul(op.Transpose(left, perm=[0, 1, 3, 2]), right))
        products: ir.Value = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1)
        return products, self._sum(op, image)

    def _sum(self, op: Emitter, image: ir.Value) -> ir.Value:
        """Σ of patches; `image` [groups, pixels, N, channels]."""
        offsets, positions = (
            self._numbers([range(0, size * step, step) for size, step in zip(sizes, steps, strict=True)])
            for sizes, steps in (
                (self._sliding.kernel, self._sliding.dilations),
                (self._sliding.outputs, (1,) * len(self._sliding.outputs)),
            )
        )
        places = op.Add(op.constant(positions), op.constant(offsets[:, None]))
        pixels = op.ReduceSum(image, op.ints(2), keepdims=0)
        sums = op.ReduceSum(op.Gather(pixels, places, axis=1), op.ints(2), keepdims=0)
        turned: ir.Value = op.Transpose(sums, perm=[0, 2, 1])
        result: ir.Value = op.Reshape(turned, op.ints(self._sliding.groups, self._sliding.width))
        return result

    def gram(self, products: Array) -> Array:
        """Put the gram together, in the dtype of `products`, which may be flat behind the groups."""
        sliding = self._sliding
        groups, channels, size = sliding.groups, sliding.channels, prod(sliding.kernel)
        products = products.reshape(groups, self.number, channels, channels)
        blocks = np.empty((groups, channels, size, channels, size), dtype=products.dtype)
        placed = self._placed()
        for shift in self._shifts():
            along = self._at(shift)
            sums = reduce(np.kron, [_covered(cut) for cut in along]).astype(products.dtype)
            found = np.einsum("bp,gpcd->gbcd", sums, products[:, placed[shift]], optimize=True)
            for number, here in enumerate(product(*(range(cut.low, cut.high + 1) for cut in along))):
                there = tuple(map(sum, zip(here, shift, strict=True)))
                a, b = (int(np.ravel_multi_index(offset, sliding.kernel)) for offset in (here, there))
                blocks[:, :, b, :, a] = found[:, number].transpose(0, 2, 1)
                blocks[:, :, a, :, b] = found[:, number]
        return blocks.reshape(groups, sliding.width, sliding.width)

    def _shifts(self) -> Iterator[Shift]:
        """Differences of offsets, one of each pair of opposites."""
        for shift in product(*(range(1 - kernel, kernel) for kernel in self._sliding.kernel)):
            if shift >= (0,) * len(shift):
                yield shift

    def _products(self) -> Iterator[Product]:
        for shift in self._shifts():
            for pieces in product(*(cut.pieces for cut in self._at(shift))):
                yield shift, pieces

    def _at(self, shift: Shift) -> list[Cut]:
        return [axis[difference] for axis, difference in zip(self._cuts, shift, strict=True)]

    def _placed(self) -> dict[Shift, list[int]]:
        """By difference, the places of its products, in the order of its pieces."""
        places = {entry: place for place, entry in enumerate(chain.from_iterable(self._batches))}
        return {
            shift: [places[shift, pieces] for pieces in product(*(cut.pieces for cut in self._at(shift)))]
            for shift in self._shifts()
        }

    def _sides(self, batch: Sequence[Product]) -> tuple[Array, Array]:
        """Numbers of the pixels on both sides of every product, filled up: [products, pixels]."""
        zero = prod(self._sliding.padded)
        left, right = np.full((2, len(batch), _length(batch[0])), zero, dtype=np.int32)
        for row, (shift, pieces) in enumerate(batch):
            pixels = self._numbers([range(piece.start, piece.start + piece.length) for piece in pieces])
            left[row, : len(pixels)] = pixels
            right[row, : len(pixels)] = pixels + self._move(shift)
        return left, right

    def _numbers(self, ranges: Sequence[range]) -> Array:
        """Numbers of pixels in the padded image, int32."""
        numbers: Array = np.ravel_multi_index(np.ix_(*ranges), self._sliding.padded).astype(np.int32)
        return numbers.reshape(-1)

    def _move(self, shift: Shift) -> int:
        steps = (difference * step for difference, step in zip(shift, self._sliding.dilations, strict=True))
        strides = (prod(self._sliding.padded[axis + 1 :]) for axis in range(len(shift)))
        return sum(step * stride for step, stride in zip(steps, strides, strict=True))


def _length(entry: Product) -> int:
    return prod(piece.length for piece in entry[1])


def _covered(cut: Cut) -> Array:
    """Which offsets' windows hold which pieces: [offsets, pieces]."""
    offsets = np.arange(cut.low, cut.high + 1)[:, None]
    first, last = (np.array([getattr(piece, side) for piece in cut.pieces]) for side in ("first", "last"))
    covered: Array = (first <= offsets) & (offsets <= last)
    return covered
