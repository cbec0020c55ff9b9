"""Storage: arrays in memory up to a bound, and beyond it in temporary files that nobody has to delete.

A file is reserved in full before it is mapped, so that a full disk is an error here and no crash at a later
write, and has no name, so that it goes with the last array in it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from math import prod
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np

from onnxprune.data.lazy import Array
from onnxprune.errors import DataError

_SLAB = 1 << 30  # bytes of one file: thousands of small arrays need no thousand open files
_ALIGNED = 64


def physical_memory() -> int:
    """Bytes of memory of this machine, or of what it lets this process have."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return machine if limit == resource.RLIM_INFINITY else min(machine, limit)


def require_room(size: int, what: str, remedy: str) -> None:
    """Refuse to make something that takes more than a quarter of the memory.

    Raises:
        DataError: says how much it is and how much there is.
    """
    memory = physical_memory()
    if size > memory // 4:
        raise DataError(
            f"{what} takes {size / 2**30:,.1f} GiB, and of memory there are {memory / 2**30:,.1f}; {remedy}"
        )


class Storage:
    """Room for arrays, the first `memory` bytes of it in memory: by default a quarter of the machine's."""

    def __init__(self, memory: int | None = None) -> None:
        self._memory = physical_memory() // 4 if memory is None else memory
        self._slab: Array = np.empty(0, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Without the room that is left: it is of this process."""
        return {**vars(self), "_slab": self._slab[:0]}

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """An array to be filled.

        Raises:
            DataError: the disk has no room for it.
        """
        size = prod(shape) * dtype.itemsize
        if dtype.hasobject or size <= self._memory:
            self._memory -= size
            return np.empty(shape, dtype)
        whole = -(-size // _ALIGNED) * _ALIGNED
        if whole > len(self._slab):
            self._slab = _reserved(max(_SLAB, whole))
        cut, self._slab = self._slab[:size], self._slab[whole:]
        return cut.view(dtype).reshape(shape)

    def keep(self, array: Array) -> Array:
        """A copy of `array`."""
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy


def _reserved(size: int) -> Array:
    try:
        with TemporaryFile(prefix="onnxprune-") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "r+", shape=(size,))
    except OSError as error:
        raise DataError(
            f"data: {size / 2**30:,.1f} GiB that memory has no room for do not fit in {gettempdir()} "
            f"({error.strerror or error}); use fewer --samples, or set TMPDIR to a larger disk"
        ) from error
