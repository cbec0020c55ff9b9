"""Spilling: arrays in files of a temporary folder, in memory only while somebody reads them.

An array that comes back is a map of its file: its pages are resident as far as they are touched, and go with
the last reference to it. Where TMPDIR is a file system in memory, nothing is gained.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from onnxprune.errors import OutputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spilled:
    """One array in a file."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def array(self) -> Array:
        """The array, read-only, mapped anew at every call."""
        return np.memmap(self.path, self.dtype, "r", shape=self.shape)

    def drop(self) -> None:
        """Remove the file."""
        self.path.unlink()


class Folder:
    """A temporary folder of arrays, made with the first one; gone with this object, at the latest at exit."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._path: Path | None = None
        self._files = 0

    def put(self, array: Array) -> Spilled:
        """Write `array`, which has an element at least.

        Raises:
            OutputError: there is no room for it.
        """
        try:
            if self._path is None:
                self._path = Path(mkdtemp(prefix=f"onnxprune-{self._what}-"))
                finalize(self, shutil.rmtree, self._path, ignore_errors=True)
            self._files += 1
            path = self._path / str(self._files)
            np.ascontiguousarray(array).tofile(path)
        except OSError as error:
            where, reason = self._path or "a temporary folder", error.strerror or error
            raise OutputError(
                f"{where}: {self._what} of {array.nbytes:,} bytes cannot be written: {reason}; "
                "set TMPDIR to a folder with more room"
            ) from error
        return Spilled(path, array.dtype, array.shape)
