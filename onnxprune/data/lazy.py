"""Lazy arrays: shape and dtype are known, samples are read when they are asked for.

They are indexed as numpy's are, but along the batch axis alone: `lazy[:, rows]`, or `lazy[...]` for all. A
file is opened anew for every read, so that thousands of them need no thousand open files.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_HEADER_BYTES = 1 << 16  # no header is longer: one that says so is not read
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Lazy(ABC):
    """An array whose samples are read on demand."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Elements in all."""
        return prod(self.shape)

    @abstractmethod
    def __getitem__(self, index: Any) -> Array: ...

    def hold(self, most: int) -> int:
        """Keep at most so many bytes more of what is read; how many that may be."""
        return 0

    def sound(self, rows: npt.NDArray[np.int64]) -> bool:
        """Whether `rows` need not be read to know that their values fit; damage that is seen is raised."""
        return False


class Header(NamedTuple):
    """What an `.npy` says before its values, which begin at byte `offset`."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int


def read_header(stream: IO[bytes], size: int) -> Header:
    """The header of the `.npy` of `size` bytes that `stream` is at the beginning of.

    Raises:
        ValueError: it is none, holds Python objects, or is shorter than it says.
    """
    start = io.BytesIO(stream.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    if version not in _READERS:
        raise ValueError(f"version {version[0]}.{version[1]} is for arrays with named fields")
    shape, fortran, dtype = _READERS[version](start)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    needed = start.tell() + prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed > size:
        raise ValueError(f"shape {list(shape)} of {dtype} needs {needed:,} bytes, it has {size:,}")
    return Header(shape, fortran, dtype, start.tell())


class NpyFile(Lazy):
    """An `.npy`, alone or uncompressed within another file; `shape` may have more axes of size 1 than it."""

    def __init__(self, path: Path, header: Header, shape: tuple[int, ...] | None = None) -> None:
        self._path, self._header = path, header
        self.shape = header.shape if shape is None else shape
        self.dtype = header.dtype

    @classmethod
    def open(cls, path: Path) -> NpyFile:
        """The array of a file.

        Raises:
            OSError, ValueError: it cannot be read, or is no `.npy`.
        """
        with path.open("rb") as stream:
            return cls(path, read_header(stream, path.stat().st_size))

    def expanded(self, axis: int) -> NpyFile:
        """With an axis of size 1 more."""
        return NpyFile(self._path, self._header, (*self.shape[:axis], 1, *self.shape[axis:]))

    def __getitem__(self, index: Any) -> Array:
        shape, fortran, dtype, offset = self._header
        array: Array
        if self.size:
            array = np.memmap(self._path, dtype, "r", offset, shape, "F" if fortran else "C")
        else:  # nothing cannot be mapped
            array = np.empty(shape, dtype)
        found: Array = array.reshape(self.shape)[index]
        return np.array(found)


class Joined(Lazy):
    """Arrays of one dtype and one shape of sample, one after the other along `axis`."""

    def __init__(self, pieces: Sequence[Array | Lazy], axis: int) -> None:
        self._pieces, self._axis = pieces, axis
        self._ends = np.cumsum([piece.shape[axis] for piece in pieces])
        first = pieces[0]
        self.dtype = first.dtype
        self.shape = (*first.shape[:axis], int(self._ends[-1]), *first.shape[axis + 1 :])

    def __getitem__(self, index: Any) -> Array:
        rows = np.arange(self._ends[-1])
        rows = rows if index is ... else rows[index[self._axis]]
        found = np.empty((*self.shape[: self._axis], len(rows), *self.shape[self._axis + 1 :]), self.dtype)
        owners = np.searchsorted(self._ends, rows, side="right")
        along: tuple[Any, ...] = (slice(None),) * self._axis
        for owner in np.unique(owners):
            places = np.flatnonzero(owners == owner)
            start = self._ends[owner - 1] if owner else 0
            found[(*along, places)] = self._pieces[owner][(*along, rows[places] - start)]
        return found
