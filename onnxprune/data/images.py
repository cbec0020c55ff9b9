"""Images: files that become the samples of one model input, decoded a batch at a time.

What a `Preprocess` leaves open, the input decides: its layout, its size, whether it is grey. Decoded pixels
are kept, as bytes, up to a bound: the first ones read, since passes over the data repeat. Numbers are looked
up in a table [256, channels] made once in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data.inputs import Array, Input
from onnxprune.data.lazy import Lazy
from onnxprune.data.pictures import pixels, require_pillow, size_of
from onnxprune.data.preprocess import Preprocess, Size
from onnxprune.errors import DataError
from onnxprune.threads import processors

_KEPT_BYTES = 1 << 30  # of decoded pixels, of all images of one source


class Decoder:
    """Image files, and what becomes of each for the input `want`."""

    def __init__(self, paths: Sequence[Path], want: Input, how: Preprocess) -> None:
        """Fit the preprocessing to the input.

        Raises:
            DataError: the input takes no images, or not those that the preprocessing makes.
            RuntimeUnavailableError: Pillow is not installed.
        """
        require_pillow()
        self.paths, self.how = paths, how
        self.layout = how.layout or want.layout
        sizes: Sequence[Any] = want.sizes or (None,) * 4
        if len(sizes) != 4 or want.batch_axis != 0:
            raise DataError(
                f"{paths[0]}: images are fed as [batch,channels,height,width], the model wants {want}; "
                "give arrays"
            )
        channels, *taken = (sizes[axis] for axis in ((1, 2, 3) if self.layout == "nchw" else (3, 1, 2)))
        self.taken = Size(*taken) if all(isinstance(side, int) for side in taken) else None
        if how.crop_share is not None and how.one_size(self.taken) is None:
            raise DataError(
                f"{paths[0]}: crop_share is a share of the crop, and {want} leaves height and width open; "
                "say both resize and crop in a preprocessing file, as in docs/data.md"
            )
        self.grey = channels == 1 if how.grey is None else how.grey
        self.table = _table(how, 1 if self.grey else 3, want)
        self._kept: dict[int, Array] = {}
        self._room = _KEPT_BYTES

    def hold(self, most: int) -> int:
        """Keep at most so many bytes of pixels more; how many that may be."""
        self._room = min(self._room, most)
        return self._room

    def sizes(self) -> list[Size]:
        """What every image comes out as; where they differ, all headers are read."""
        size = self.how.one_size(self.taken)
        if size is not None:
            return [size] * len(self.paths)
        return [self.look(row) for row in range(len(self.paths))]

    def geometry(self, image: Size) -> tuple[Size, Size]:
        """What an image of this size is resized to, and the size of what is cut out of it."""
        return self.how.geometry(image, self.taken)

    def look(self, row: int) -> Size:
        """The size that an image comes out in, by its header.

        Raises:
            DataError: it has none, or cannot be made that size.
        """
        return size_of(self.paths[row], self.geometry)

    def read(self, rows: npt.NDArray[np.int64]) -> Array:
        """The numbers of these images, of one size, in the layout of the input."""
        missing = [row for row in rows.tolist() if row not in self._kept]
        with ThreadPoolExecutor(processors()) as pool:
            decoded = dict(zip(missing, pool.map(self._decode, missing), strict=True))
        pictures = np.stack([self._kept[row] if row in self._kept else decoded[row] for row in rows.tolist()])
        self._keep(decoded)
        channels = np.arange(pictures.shape[-1])
        found = pictures if self.table is None else self.table[pictures, channels]
        return found if self.layout == "nhwc" else found.transpose(0, 3, 1, 2)

    def _decode(self, row: int) -> Array:
        how = self.how
        picture = pixels(self.paths[row], self.geometry, grey=self.grey, interpolation=how.interpolation)
        return picture[..., ::-1] if how.order == "bgr" else picture

    def _keep(self, decoded: dict[int, Array]) -> None:
        for row, picture in decoded.items():
            if picture.size <= self._room:
                self._room -= picture.size
                self._kept[row] = picture


class ImageRows(Lazy):
    """Those `numbers` of the decoder's images that have one size, as an array."""

    def __init__(self, decoder: Decoder, numbers: Sequence[int], size: Size) -> None:
        self._decoder, self._numbers = decoder, np.asarray(numbers, np.int64)
        channels = 1 if decoder.grey else 3
        each = (*size, channels) if decoder.layout == "nhwc" else (channels, *size)
        self.shape = (len(numbers), *each)
        self.dtype = np.dtype(np.uint8) if decoder.table is None else decoder.table.dtype

    def hold(self, most: int) -> int:
        """Keep at most so many bytes of pixels more, of all images of the source."""
        return self._decoder.hold(most)

    def __getitem__(self, index: Any) -> Array:
        return self._decoder.read(self._numbers if index is ... else self._numbers[index[0]])

    def sound(self, rows: npt.NDArray[np.int64]) -> bool:
        """Values are those of the table; of the files, the headers are read."""
        for number in self._numbers[rows].tolist():
            self._decoder.look(number)
        return True


def _table(how: Preprocess, channels: int, want: Input) -> npt.NDArray[np.float32] | None:
    """What each of 256 values becomes, by channel; None where they stay."""
    low, high = how.range
    pixels = np.arange(256)[:, None]
    values = pixels * ((high - low) / 255) + low
    for name, given in (("mean", how.mean), ("std", how.std)):
        if np.size(given) not in (1, channels):
            raise DataError(
                f"the preprocessing has {np.size(given)} numbers as {name}, the images for {want} have "
                f"{channels} channel{'s' * (channels > 1)}; give one number, or one a channel"
            )
    numbers = np.broadcast_to((values - how.mean) / how.std, (256, channels))
    if np.array_equal(numbers, np.broadcast_to(pixels, (256, channels))):
        return None
    table = numbers.astype(np.float32)
    if want.dtype.kind != "f" or not np.isfinite(table.astype(want.dtype)).all():
        raise DataError(
            f"preprocessing gives numbers from {table.min():g} to {table.max():g}, which the input {want} "
            "cannot hold; use --preprocess none where it takes pixels as they are"
        )
    return table
