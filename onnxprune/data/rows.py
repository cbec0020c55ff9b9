"""Rows: files of which each is one sample, and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from onnxprune.data.archives import UNREADABLE, unreadable
from onnxprune.data.images import Decoder, ImageRows
from onnxprune.data.inputs import Array, Input
from onnxprune.data.lazy import Joined, Lazy, NpyFile
from onnxprune.data.pictures import SUFFIXES
from onnxprune.data.preprocess import PRESETS, Preprocess
from onnxprune.errors import DataError, UsageError

Samples = Mapping[str, Array | Lazy]

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Rows:
    """Files of samples: a path a row for every input, and labels [rows]; `words` say where those are from.

    `classes`: how many there are, where names were numbered.
    """

    where: str
    files: dict[str, list[Path]]
    labels: Array | None = None
    words: str = ""
    notes: tuple[str, ...] = ()
    classes: int | None = None

    @property
    def images(self) -> bool:
        """Whether any of the files is one."""
        return any(path.suffix.lower() in SUFFIXES for paths in self.files.values() for path in paths)

    def samples(self, wants: Sequence[Input], how: Preprocess | None) -> Iterator[Samples]:
        """Arrays by input name, one mapping for each run of rows of one shape."""
        columns = [_column(self.files[want.name], want, how, self.where) for want in wants]
        count = len(columns[0].forms)
        for _, run in groupby(range(count), key=lambda row: [column.forms[row] for column in columns]):
            rows = list(run)
            found = {want.name: column.take(rows) for want, column in zip(wants, columns, strict=True)}
            yield found if self.labels is None else {"labels": self.labels[rows], **found}


def numbered(classes: Sequence[str]) -> str:
    """The first classes with their numbers."""
    shown = [f"{number} = {name}" for number, name in enumerate(classes[:_NAMES_SHOWN])]
    last = [f"… {len(classes) - 1} = {classes[-1]}"] * (len(classes) > _NAMES_SHOWN)
    return ", ".join(shown + last)


@dataclass(frozen=True)
class _Column:
    """What each row is like in one input, and rows of one form as an array."""

    forms: Sequence[object]
    take: Callable[[Sequence[int]], Lazy]


def _column(paths: Sequence[Path], want: Input, how: Preprocess | None, where: str) -> _Column:
    kinds = {path.suffix.lower() for path in paths}
    if kinds and kinds <= set(SUFFIXES):
        if how is None:
            raise UsageError(
                f"{where}: holds images; say how pixels become numbers with --preprocess "
                f"{', '.join(PRESETS)} or a file, in Python with onnxprune.Images"
            )
        decoder = Decoder(paths, want, how)
        sizes = decoder.sizes()
        return _Column(sizes, lambda rows: ImageRows(decoder, rows, sizes[rows[0]]))
    if kinds - {".npy"}:
        odd = ", ".join(sorted(kinds - {".npy"}))
        raise DataError(f"{where}: names {odd} files for the input {want}; give images, or .npy files")
    arrays = [_one_sample(path, want) for path in paths]
    forms = [(array.shape, array.dtype) for array in arrays]
    return _Column(forms, lambda rows: Joined([arrays[row] for row in rows], want.batch_axis or 0))


def _one_sample(path: Path, want: Input) -> NpyFile:
    try:
        array = NpyFile.open(path)
    except UNREADABLE as error:
        raise unreadable(path, "the array", error) from error
    axis = want.batch_axis or 0
    if want.sizes is not None and len(array.shape) == len(want.sizes) - 1:
        array = array.expanded(axis)
    want.check_shape(array.shape, str(path))
    if want.batch_axis is None or array.shape[axis] != 1:
        raise DataError(
            f"{path}: shape {list(array.shape)}; a line of a .csv is one sample of the input {want}; "
            "give an .npz"
        )
    return array
