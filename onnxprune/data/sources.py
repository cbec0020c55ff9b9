"""Sources: from a file, an array or feeds to arrays by name; another kind of file is a line in `_OPENERS`."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from onnxprune.data.inputs import Array, Input, listed
from onnxprune.errors import DataError

Source = str | Path | Array | Mapping[str, Array] | Iterable[Mapping[str, Array]]

_ACCEPTED = "give a file, an array, or mappings from input name to array"
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read(source: Source, wants: Sequence[Input]) -> tuple[str, list[Mapping[str, Array]]]:
    """The name of `source` for messages, and its arrays by name: one mapping, or one for every feed.

    Raises:
        DataError: the file is missing or unreadable, or the source is nothing of the kind.
    """
    if isinstance(source, str | Path):
        return str(source), [_open(Path(source), wants)]
    if isinstance(source, np.ndarray):
        return "array", [_named(source, wants, "array")]
    if isinstance(source, Mapping):
        return "arrays", [source]
    try:
        feeds = list(source)
    except TypeError as error:
        raise DataError(f"data: cannot use {type(source).__name__}; {_ACCEPTED}") from error
    stranger = next((feed for feed in feeds if not isinstance(feed, Mapping)), None)
    if stranger is not None:
        raise DataError(f"data: cannot use {type(stranger).__name__} as a feed; {_ACCEPTED}")
    return "feeds", feeds


def discover(model: Path, kind: Literal["calibration", "evaluation"]) -> Path | None:
    """The data file that belongs to `model` by its name: `calibration/<stem>.npz`, `<stem>.eval.npz`.

    The folder `calibration` is looked for beside the model, beside its folder, and in the working directory.
    """
    name = f"{model.stem}{'.eval' if kind == 'evaluation' else ''}.npz"
    folders = (model.parent, model.parent.resolve().parent, Path())
    return next((path for folder in folders if (path := folder / "calibration" / name).is_file()), None)


class _Npz(Mapping[str, Array]):
    """The arrays of an `.npz`, read when asked for, never unpickled."""

    def __init__(self, path: Path) -> None:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not an .npz file, or a truncated one; write it with np.savez")
        self._path = path
        with zipfile.ZipFile(path) as archive:
            self._sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}

    def __getitem__(self, key: str) -> Array:
        size, memory = self._sizes[key], os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory:
            raise DataError(
                f"{self._path}: '{key}' unpacks to {size / 2**30:,.0f} GiB, but this machine has "
                f"{memory / 2**30:,.0f} GiB of memory; store fewer samples, or an .npy, read in pieces"
            )
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                return np.asarray(archive[key])
        except (*_UNREADABLE, MemoryError) as error:
            raise _unreadable(self._path, f"the array '{key}'", error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def _open_npz(path: Path, wants: Sequence[Input]) -> Mapping[str, Array]:
    try:
        return _Npz(path)
    except _UNREADABLE as error:
        raise _unreadable(path, "the archive", error) from error


def _open_npy(path: Path, wants: Sequence[Input]) -> Mapping[str, Array]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except _UNREADABLE as error:
        raise _unreadable(path, "the array", error) from error
    return _named(array, wants, str(path))


_OPENERS: dict[str, Callable[[Path, Sequence[Input]], Mapping[str, Array]]] = {
    ".npz": _open_npz,
    ".npy": _open_npy,
}


def _open(path: Path, wants: Sequence[Input]) -> Mapping[str, Array]:
    known = ", ".join(_OPENERS)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give one of {known}")
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise DataError(f"{path}: '{path.suffix}' files cannot be read as data; give one of {known}")
    return opener(path, wants)


def _named(array: Array, wants: Sequence[Input], where: str) -> Mapping[str, Array]:
    if len(wants) != 1:
        raise DataError(f"{where}: one array, the model wants {listed(wants)}; name the arrays in an .npz")
    return {wants[0].name: array}


def _unreadable(path: Path, what: str, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: {what} cannot be read ({reason}); write it again with np.save or np.savez")
