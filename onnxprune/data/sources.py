"""Sources: from whatever is given as data to arrays by name; another kind of file is a line in `_OPENERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from onnxprune.data.archives import UNREADABLE, Npz, unreadable
from onnxprune.data.folders import read_folder
from onnxprune.data.inputs import Array, Input, listed
from onnxprune.data.lazy import Lazy, NpyFile
from onnxprune.data.preprocess import Preprocess, preprocessing
from onnxprune.data.rows import Rows, Samples
from onnxprune.data.storage import Storage
from onnxprune.data.streams import ACCEPTED, Stream, repeatable
from onnxprune.data.tables import read_table
from onnxprune.errors import DataError


class Reader(Protocol):
    """Gives one feed after the other, then None: onnxruntime's `CalibrationDataReader`."""

    def get_next(self) -> Mapping[str, Array] | None:
        """The next feed."""
        ...


@dataclass(frozen=True)
class Images:
    """A folder or a `.csv` of images, and how they become numbers: a preset, a file, or a record.

    Where it turns out to hold arrays, they are taken as they are, which is noted.
    """

    path: str | Path
    preprocess: str | Path | Preprocess


Feeds = Iterable[Mapping[str, Array]]
Source = str | Path | Images | Array | Mapping[str, Array] | Feeds | Reader | Callable[[], Feeds | Reader]


@dataclass(frozen=True)
class Found:
    """What a source holds: arrays by name, in one mapping or more, each with where it is from, for messages.

    `streamed`: samples are taken from the beginning, because nobody knows how many there are. `classes`: how
    many names were numbered to be labels, if they were.
    """

    where: str
    mappings: Iterable[tuple[str, Samples]]
    notes: tuple[str, ...] = ()
    labelled: str = ""
    prepared: str = ""
    streamed: bool = False
    classes: int | None = None


def read(given: Source, wants: Sequence[Input]) -> Found:
    """What `given` holds, for these inputs.

    Raises:
        DataError: a file is missing or unreadable, or the source is nothing of the kind.
        UsageError: images without a word on how they become numbers.
    """
    source: Any = repeatable(given)
    if isinstance(source, str | Path):
        return _open(Path(source), wants, None)
    if isinstance(source, Images):
        return _open(Path(source.path), wants, preprocessing(source.preprocess))
    if isinstance(source, np.ndarray):
        return Found("array", [("array", _named(source, wants, "array"))])
    if isinstance(source, Mapping):
        return Found("arrays", [("arrays", source)])
    if isinstance(source, Stream):
        return Found(source.where, _numbered(source), streamed=True)
    if not isinstance(source, Sequence):
        raise DataError(f"data: cannot use {type(source).__name__}; {ACCEPTED}")
    stranger = next((feed for feed in source if not isinstance(feed, Mapping)), None)
    if stranger is not None:
        raise DataError(f"data: cannot use {type(stranger).__name__} as a feed; {ACCEPTED}")
    return Found("feeds", _numbered(source))


def discover(model: Path, kind: Literal["calibration", "evaluation"]) -> Path | None:
    """The data file that belongs to `model` by its name: `calibration/<stem>.npz`, `<stem>.eval.npz`.

    The folder `calibration` is looked for beside the model, beside its folder, and in the working directory.
    """
    name = f"{model.stem}{'.eval' if kind == 'evaluation' else ''}.npz"
    folders = (model.parent, model.parent.resolve().parent, Path())
    return next((path for folder in folders if (path := folder / "calibration" / name).is_file()), None)


def _open_npz(path: Path, wants: Sequence[Input], storage: Storage) -> Samples:
    return Npz(path, storage)


def _open_npy(path: Path, wants: Sequence[Input], storage: Storage) -> Samples:
    try:
        return _named(NpyFile.open(path), wants, str(path))
    except UNREADABLE as error:
        raise unreadable(path, "the array", error) from error


_OPENERS: dict[str, Callable[[Path, Sequence[Input], Storage], Samples]] = {
    ".npz": _open_npz,
    ".npy": _open_npy,
}


def _open(path: Path, wants: Sequence[Input], how: Preprocess | None) -> Found:
    suffix, known = path.suffix.lower(), ", ".join((*_OPENERS, ".csv"))
    if not path.exists():
        raise DataError(f"{path}: no such file; give one of {known}, or a folder of images or arrays")
    if path.is_dir() or suffix == ".csv":
        held = read_folder(path, wants) if path.is_dir() else read_table(path, wants)
        if isinstance(held, Rows):
            return _of_rows(held, wants, how)
    elif suffix in _OPENERS:
        held = [path]
    else:
        raise DataError(
            f"{path}: '{path.suffix}' files cannot be read as data; give one of {known}, or a folder"
        )
    storage = Storage()
    mappings = ((str(file), _OPENERS[file.suffix.lower()](file, wants, storage)) for file in held)
    return Found(str(path), mappings, _unused(path, how))


def _of_rows(rows: Rows, wants: Sequence[Input], how: Preprocess | None) -> Found:
    prepared = f"preprocessing {how}" if rows.images and how is not None else ""
    notes = rows.notes if rows.images else (*rows.notes, *_unused(rows.where, how))
    mappings = ((rows.where, samples) for samples in rows.samples(wants, how))
    return Found(rows.where, mappings, notes, rows.words, prepared, classes=rows.classes)


def _numbered(feeds: Iterable[Mapping[str, Array]]) -> Iterable[tuple[str, Samples]]:
    return ((f"feed {number}", feed) for number, feed in enumerate(feeds))


def _unused(where: str | Path, how: Preprocess | None) -> tuple[str, ...]:
    return () if how is None else (f"{where}: preprocessing not used: it holds arrays",)


def _named(array: Array | Lazy, wants: Sequence[Input], where: str) -> Samples:
    if len(wants) != 1:
        raise DataError(f"{where}: one array, the model wants {listed(wants)}; name the arrays in an .npz")
    return {wants[0].name: array}
