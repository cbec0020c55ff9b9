"""Archives: the arrays of an `.npz` by name; never unpickled, and never larger in memory than they say.

Arrays that `np.savez` wrote are read from where they lie; those of `np.savez_compressed` are unpacked once,
when their first sample is asked for. Checksums are compared in both cases.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxprune.data.inputs import Array
from onnxprune.data.lazy import Header, Lazy, NpyFile, read_header
from onnxprune.data.storage import Storage, physical_memory
from onnxprune.errors import DataError

_CHUNK = 1 << 22  # bytes
_LOCAL_HEADER = 30  # bytes, before the member's name

#: What damaged `.npy` and `.npz` files raise (RuntimeError: encrypted ones; the last two: their headers).
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def unreadable(path: Path, what: str, error: BaseException) -> DataError:
    """The error that says so in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: {what} cannot be read ({reason}); write it again with np.save or np.savez")


class Npz(Mapping[str, Lazy]):
    """The arrays of an `.npz`; unpacked ones are in `storage`."""

    def __init__(self, path: Path, storage: Storage) -> None:
        """Read the table of contents.

        Raises:
            DataError: not an `.npz`, or a damaged one.
        """
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not an .npz file, or a truncated one; write it with np.savez")
        self._path, self._storage = path, storage
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        except UNREADABLE as error:
            raise unreadable(path, "the archive", error) from error

    def __getitem__(self, key: str) -> Lazy:
        info, memory = self._members[key], physical_memory()
        packed = info.compress_type != zipfile.ZIP_STORED
        if packed and info.file_size > memory:
            raise DataError(
                f"{self._path}: '{key}' unpacks to {info.file_size / 2**30:,.0f} GiB, but this machine has "
                f"{memory / 2**30:,.0f} GiB of memory; store fewer samples, or an .npy, read in pieces"
            )
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as stream:
                header = read_header(stream, info.file_size)
                if packed:
                    return _Packed(self, key, header)
                _to_the_end(stream)
            if info.compress_size != info.file_size:
                raise ValueError("its sizes contradict each other")
            offset = _start(self._path, info) + header.offset
            return NpyFile(self._path, header._replace(offset=offset), header.shape)
        except UNREADABLE as error:
            raise unreadable(self._path, f"the array '{key}'", error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def unpack(self, key: str, header: Header) -> Array:
        """All of one array."""
        shape = header.shape[::-1] if header.fortran else header.shape
        array = self._storage.empty(shape, header.dtype)
        room = array.reshape(-1).view(np.uint8)
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(self._members[key]) as stream:
                stream.read(header.offset)
                filled = 0
                while filled < len(room):
                    chunk = stream.read(min(_CHUNK, len(room) - filled))
                    if not chunk:
                        raise EOFError("it is cut off")
                    room[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
                    filled += len(chunk)
                _to_the_end(stream)
        except UNREADABLE as error:
            raise unreadable(self._path, f"the array '{key}'", error) from error
        return array.T if header.fortran else array


class _Packed(Lazy):
    """A compressed array: all of it is unpacked when any of it is asked for."""

    def __init__(self, archive: Npz, key: str, header: Header) -> None:
        self._archive, self._key, self._header = archive, key, header
        self.shape, self.dtype = header.shape, header.dtype
        self._array: Array | None = None

    def __getitem__(self, index: Any) -> Array:
        if self._array is None:
            self._array = self._archive.unpack(self._key, self._header)
        return np.asarray(self._array[index])


def _to_the_end(stream: IO[bytes]) -> None:
    """Where the checksum is compared."""
    while stream.read(_CHUNK):
        pass


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where in the file the bytes of an uncompressed member begin."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset + _LOCAL_HEADER - 4)
        name, extra = struct.unpack("<HH", stream.read(4))
    return int(info.header_offset + _LOCAL_HEADER + name + extra)
