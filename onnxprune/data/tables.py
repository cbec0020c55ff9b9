"""Tables: a `.csv` with a header that names the files of every sample, which lie in its folder.

A model with one input has them in the column `path`, or one named as the input; one with several inputs in a
column for each. A column `label` holds class numbers, or names, numbered in their sorted order.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxprune.data.inputs import Array, Input
from onnxprune.data.rows import Rows, numbered
from onnxprune.errors import DataError

_PATH, _LABEL = "path", "label"
_LONG = 19  # digits that a 64-bit number may not hold


def read_table(path: Path, wants: Sequence[Input]) -> Rows:
    """The files that a `.csv` names, which lie in its folder, and their labels.

    Raises:
        DataError: another table, or one that names a file that is missing or lies elsewhere; says the line.
    """
    names = {want.name: want.name for want in wants}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = list(reader.fieldnames or ())
            if len(wants) == 1 and _PATH in header:
                names = {wants[0].name: _PATH}
            _require(path, header, names)
            lines = [(reader.line_num, line) for line in reader]
        overlong = next((number for number, line in lines if None in line), None)
        if overlong is not None:
            raise DataError(
                f"{path}: line {overlong} has more fields than the first; put quotes around commas"
            )
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it as CSV in UTF-8, with commas") from error
    folder = path.parent.resolve()
    files = {
        name: [_inside(path, number, folder, line[column]) for number, line in lines]
        for name, column in names.items()
    }
    unused = [column for column in header if column not in (*names.values(), _LABEL)]
    notes = (f"{path}: columns not used: {', '.join(unused)}",) if unused else ()
    if _LABEL not in header or not lines:
        return Rows(str(path), files, None, "", notes)
    labels, words, classes = _numbers(path, [(number, line[_LABEL]) for number, line in lines])
    return Rows(str(path), files, labels, words, notes, classes)


def _require(path: Path, header: Sequence[str], names: Mapping[str, str]) -> None:
    missing = [column for column in names.values() if column not in header]
    if not missing:
        return
    found = ", ".join(f"'{column}'" for column in header) or "none"
    wanted = (
        f"a column '{_PATH}'" if len(names) == 1 else f"a column of paths for each input: {', '.join(names)}"
    )
    raise DataError(
        f"{path}: its columns are {found}; the first line must name {wanted}, and '{_LABEL}' if any"
    )


def _inside(table: Path, line: int, folder: Path, name: str | None) -> Path:
    """The file `name` of a line, which may not lead out of the table's folder."""
    if not name:
        raise DataError(f"{table}: line {line} names no file; complete it")
    path = table.parent / name
    try:
        inside = path.resolve().is_relative_to(folder) and ".." not in Path(name).parts
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside or Path(name).is_absolute():
        raise DataError(
            f"{table}: line {line} names {name!r}, outside the folder of the table; put the files beside it"
        )
    if not path.is_file():
        raise DataError(f"{table}: line {line} names {name!r}, and there is no such file")
    return path


def _numbers(table: Path, labels: Sequence[tuple[int, str | None]]) -> tuple[Array, str, int | None]:
    """Whole numbers as they are; names by their place in the sorted names, said and counted."""
    empty = next((line for line, text in labels if not text), None)
    if empty is not None:
        raise DataError(f"{table}: line {empty} has no label; complete it, or leave the column out")
    texts = [(text or "").strip() for _, text in labels]
    whole = [text.removeprefix("-").isdecimal() and len(text) < _LONG for text in texts]
    if all(whole):
        return np.array([int(text) for text in texts]), "", None
    odd = next(((line, text) for line, text in labels if _is_number(text or "")), None)
    if odd is not None:
        raise DataError(
            f"{table}: line {odd[0]} has the label {odd[1]!r}; give class numbers in all lines, or names"
        )
    classes, numbers = np.unique(texts, return_inverse=True)
    return numbers, f" by name ({numbered(classes.tolist())})", len(classes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
