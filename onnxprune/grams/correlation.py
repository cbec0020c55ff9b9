"""The gram of a stride-1 Conv's patches from products of shifted images, exact at every border.

    products    [groups, number, channels, channels]    the whole ones, then those of the border
    gram        [groups, d_in, d_in]                    the order of `layers`: channels slowest

With d the difference of two offsets of a patch, a block of the gram is Σ_q x[q] x[q + d]ᵀ over the window of
pixels q that the first offset sees. For each d one product runs over the whole image, and small ones over the
pieces of its border (see `pieces`); from these every window is put together. A piece in the padding is zero
and is left out. Differences of opposite sign give transposed blocks, so only half of them are needed.

All whole products together are one matrix product: the image moved along its first axis, by k differences, on
the left, and along the other axes on the right. Products are sums over samples and positions like the gram
itself; they may be added over batches first, and are put together once.
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
Pixels = tuple[range, ...]
Product = tuple[Shift, tuple[Piece, ...]]

# Products of about one length are one batched MatMul: shorter ones are filled up with zeros, but not by much,
# and both sides of a batch together hold less than the patches would.
_FILLED = 0.75
_MOST_MAPS = 4
_SMALLER = 6  # times as large are a sample's moved images as its products, where these are made alone


class Correlation:
    """The products of one `Sliding`, in the order in which they are emitted."""

    def __init__(self, sliding: Sliding) -> None:
        self._sliding = sliding
        axes = list(zip(sliding.kernel, sliding.dilations, sliding.outputs, strict=True))
        self._cuts = [cuts(*axis) for axis in axes]
        self._seen = {shift: dict(self._pieces(shift)) for shift in self._shifts()}
        # Windows further apart than they are wide leave pixels between them that no piece holds.
        whole = all(kernel == 1 or step <= size for kernel, step, size in axes)
        self._main = {
            shift: max(own, key=lambda pieces: _length(own[pieces]))
            for shift, own in self._seen.items()
            if whole and own
        }
        border = [
            (_length(pixels), (shift, pieces))
            for shift, own in self._seen.items()
            for pieces, pixels in own.items()
            if self._main.get(shift) != pieces
        ]
        self._batches: list[list[Product]] = []
        for length, entry in sorted(border, key=lambda each: each[0], reverse=True):
            last = self._batches[-1] if self._batches else []
            longest = _length(self._pixels(last[0])) if last else 0
            fits = length >= _FILLED * longest and (len(last) + 1) * longest <= _MOST_MAPS * self.positions
            if last and fits:
                last.append(entry)
            else:
                self._batches.append([entry])

    @property
    def number(self) -> int:
        """How many products there are."""
        return len(self._main) + self.borders

    @property
    def borders(self) -> int:
        """How many of them are of the border."""
        return sum(map(len, self._batches))

    @property
    def sides(self) -> tuple[int, int]:
        """How many moved images are on the left and on the right of the whole products; 0 without them."""
        first, *others = self._sliding.kernel
        return (first, prod(2 * size - 1 for size in others)) if self._main else (0, 0)

    @property
    def pixels(self) -> int:
        """Over how many pixels the products of the border run, all together."""
        return sum(len(batch) * _length(self._pixels(batch[0])) for batch in self._batches)

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

        Only copies, MatMul and sums: a Conv would round the sums on GPUs that multiply in TF32.
        """
        groups, channels = self._sliding.groups, self._sliding.channels
        value = op.Reshape(value, op.ints(0, groups, channels, *self._sliding.sizes))
        image = op.Reshape(value, op.ints(0, 0, 0, -1))
        image = op.Pad(
            image, op.ints(0, 0, 0, 0, 0, 0, 0, 1)
        )  # what lies outside is one more pixel, of zeros
        image = op.Transpose(image, perm=[0, 1, 3, 2])
        if groups > 1:  # one axis at a time is many times faster in onnxruntime
            image = op.Transpose(image, perm=[1, 0, 2, 3])
        else:
            image = op.Unsqueeze(op.Squeeze(image, op.ints(1)), op.ints(0))
        parts = [self._whole(op, value, image)] if self._main else []
        parts += [self._border(op, image, batch) for batch in self._batches]
        products: ir.Value = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1)
        return products, self._sum(op, value)

    def _whole(self, op: Emitter, value: ir.Value, image: ir.Value) -> ir.Value:
        """The whole products of `value` [N, groups, channels, …], or of `image` (see `_gathered`)."""
        groups, channels, (first, others) = self._sliding.groups, self._sliding.channels, self.sides
        left = [(-move, *(0,) * (len(self._cuts) - 1)) for move in range(first)]
        right = [(0, *moves) for moves in product(*(range(1 - k, k) for k in self._sliding.kernel[1:]))]
        if self._by_sample:
            sides = [self._moved(op, value, moves) for moves in (left, right)]
            each = op.MatMul(sides[0], op.Transpose(sides[1], perm=[0, 1, 3, 2]))
            found = op.ReduceSum(each, op.ints(0), keepdims=0)
        else:
            sides = [self._gathered(op, image, moves) for moves in (left, right)]
            found = op.MatMul(op.Transpose(sides[0], perm=[0, 2, 1]), sides[1])
        found = op.Transpose(
            op.Reshape(found, op.ints(groups, first, channels, others, channels)), perm=[0, 1, 3, 2, 4]
        )
        wanted = [shift[0] * others + right.index((0, *shift[1:])) for shift in self._main]
        flat = op.Reshape(found, op.ints(groups, -1, channels, channels))
        whole: ir.Value = op.Gather(flat, op.ints(*wanted), axis=1)
        return whole

    @property
    def _by_sample(self) -> bool:
        """Whether each sample's whole products are made alone, and added: where they are much the smaller.

        Pixels then stay side by side, and moved images are copied by the row instead of by the pixel.
        """
        first, others = self.sides
        return _SMALLER * first * others * self._sliding.channels <= (first + others) * self.positions

    def _moved(self, op: Emitter, value: ir.Value, moves: Sequence[Shift]) -> ir.Value:
        """`value` [N, groups, channels, …], moved images in a row: [N, groups, moves · channels, pixels]."""
        sliding, axes = self._sliding, range(3, 3 + len(self._cuts))
        steps = np.array(moves) * sliding.dilations
        low, high = steps.min(axis=0), steps.max(axis=0)
        padded = op.Pad(value, op.ints(0, 0, 0, *(-low), 0, 0, 0, *high))
        parts = [
            op.Slice(padded, op.ints(*start), op.ints(*(start + sliding.sizes)), op.ints(*axes))
            for start in steps - low
        ]
        joined = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=2)
        made: ir.Value = op.Reshape(joined, op.ints(0, 0, len(moves) * sliding.channels, -1))
        return made

    def _gathered(self, op: Emitter, image: ir.Value, moves: Sequence[Shift]) -> ir.Value:
        """`image` [groups, N, pixels, channels], moved, side by side: [groups, rows, moves · channels]."""
        everywhere = tuple(map(range, self._sliding.sizes))
        places = np.stack([self._numbers(everywhere, move) for move in moves], axis=1)
        moved = op.Gather(image, op.constant(places), axis=2)
        made: ir.Value = op.Reshape(
            moved, op.ints(self._sliding.groups, -1, len(moves) * self._sliding.channels)
        )
        return made

    def _border(self, op: Emitter, image: ir.Value, batch: Sequence[Product]) -> ir.Value:
        """The products of one batch, of `image` [groups, N, pixels, channels]."""
        length = _length(self._pixels(batch[0]))
        sides = np.full((2, len(batch), length), prod(self._sliding.sizes), dtype=np.int32)
        for row, entry in enumerate(batch):
            pixels = self._pixels(entry)
            for side, move in zip(sides, ((0,) * len(pixels), entry[0]), strict=True):
                side[row, : _length(pixels)] = self._numbers(pixels, move)
        shape = op.ints(self._sliding.groups, len(batch), -1, self._sliding.channels)
        left, right = (
            op.Reshape(op.Transpose(op.Gather(image, op.constant(side), axis=2), perm=[0, 2, 1, 3, 4]), shape)
            for side in sides
        )
        products: ir.Value = op.MatMul(op.Transpose(left, perm=[0, 1, 3, 2]), right)
        return products

    def _sum(self, op: Emitter, value: ir.Value) -> ir.Value:
        """Σ of patches, axis by axis; `value` [N, groups, channels, …]."""
        sliding = self._sliding
        sums, behind = op.ReduceSum(value, op.ints(0), keepdims=0), prod(sliding.sizes)
        for axis, size in enumerate(sliding.sizes):
            behind //= size
            first = sliding.dilations[axis] * np.arange(sliding.kernel[axis])[:, None] - sliding.begins[axis]
            seen = (first <= np.arange(size)) & (np.arange(size) < first + sliding.outputs[axis])
            windows = op.CastLike(op.constant(seen.astype(np.float32)), value)
            sums = op.MatMul(windows, op.Reshape(sums, op.ints(-1, size, behind)))
        total: ir.Value = op.Reshape(sums, op.ints(sliding.groups, sliding.width))
        return total

    def gram(self, products: Array) -> Array:
        """Put the gram together, in the dtype of `products`, which may be flat behind the groups."""
        sliding = self._sliding
        groups, channels, size = sliding.groups, sliding.channels, prod(sliding.kernel)
        products = products.reshape(groups, self.number, channels, channels)
        blocks = np.empty((groups, channels, size, channels, size), dtype=products.dtype)
        placed = self._placed()
        for shift, own in self._seen.items():
            along = self._at(shift)
            every = list(product(*(cut.pieces for cut in along)))
            covered = reduce(np.kron, [_covered(cut) for cut in along])
            weights = np.zeros((len(covered), self.number), dtype=products.dtype)
            for pieces in own:
                column = covered[:, every.index(pieces)]
                for place, sign in placed[shift, pieces]:
                    weights[:, place] += sign * column
            used = np.flatnonzero(weights.any(axis=0))
            found = np.einsum("bp,gpcd->gbcd", weights[:, used], products[:, used], optimize=True)
            for number, here in enumerate(product(*(range(cut.low, cut.high + 1) for cut in along))):
                there = tuple(map(sum, zip(here, shift, strict=True)))
                a, b = (int(np.ravel_multi_index(offset, sliding.kernel)) for offset in (here, there))
                blocks[:, :, b, :, a] = found[:, number].transpose(0, 2, 1)
                blocks[:, :, a, :, b] = found[:, number]
        return blocks.reshape(groups, sliding.width, sliding.width)

    def _placed(self) -> dict[Product, list[tuple[int, int]]]:
        """By piece, the places of the products that it is the sum of, and their signs."""
        entries = enumerate(chain.from_iterable(self._batches), len(self._main))
        placed = {entry: [(place, 1)] for place, entry in entries}
        for place, (shift, main) in enumerate(self._main.items()):
            others = [placed[shift, pieces][0][0] for pieces in self._seen[shift] if pieces != main]
            placed[shift, main] = [(place, 1), *((other, -1) for other in others)]
        return placed

    def _shifts(self) -> Iterator[Shift]:
        """Differences of offsets, one of each pair of opposites."""
        for shift in product(*(range(1 - kernel, kernel) for kernel in self._sliding.kernel)):
            if shift >= (0,) * len(shift):
                yield shift

    def _pieces(self, shift: Shift) -> Iterator[tuple[tuple[Piece, ...], Pixels]]:
        """The pieces for a difference, and which pixels of the image are in them, with partners in it too."""
        sliding = self._sliding
        axes = list(zip(shift, sliding.dilations, sliding.begins, sliding.sizes, strict=True))
        for pieces in product(*(cut.pieces for cut in self._at(shift))):
            pixels = tuple(
                range(
                    max(0, piece.start - begin, -move * step),
                    min(size, piece.start + piece.length - begin, size - move * step),
                )
                for piece, (move, step, begin, size) in zip(pieces, axes, strict=True)
            )
            if all(pixels):
                yield pieces, pixels

    def _pixels(self, entry: Product) -> Pixels:
        shift, pieces = entry
        return self._seen[shift][pieces]

    def _at(self, shift: Shift) -> list[Cut]:
        return [axis[difference] for axis, difference in zip(self._cuts, shift, strict=True)]

    def _numbers(self, pixels: Pixels, move: Shift) -> Array:
        """Numbers of the pixels `move` offsets from these, int32; all outside of the image have one."""
        sizes, steps = self._sliding.sizes, self._sliding.dilations
        along = [
            np.asarray(axis) + offset * step for axis, offset, step in zip(pixels, move, steps, strict=True)
        ]
        grid = np.meshgrid(*along, indexing="ij", sparse=True)
        inside = reduce(
            np.logical_and, [(0 <= at) & (at < size) for at, size in zip(grid, sizes, strict=True)]
        )
        numbers = np.ravel_multi_index(tuple(grid), sizes, mode="clip")
        return np.where(inside, numbers, prod(sizes)).astype(np.int32).reshape(-1)


def _length(pixels: Pixels) -> int:
    return prod(map(len, pixels))


def _covered(cut: Cut) -> Array:
    """Which offsets' windows hold which pieces: [offsets, pieces]."""
    offsets = np.arange(cut.low, cut.high + 1)[:, None]
    first, last = (np.array([getattr(piece, side) for piece in cut.pieces]) for side in ("first", "last"))
    covered: Array = (first <= offsets) & (offsets <= last)
    return covered
