"""Folders: many files as one source, each a shard of the samples or an image.

They are in the order of their paths. Where every image lies in one of two or more sub-folders, these are the
classes, numbered in their order as torchvision's ImageFolder does; `labels.csv` in the folder is a table of
what is to be read instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onnxprune.data.inputs import Input, listed
from onnxprune.data.pictures import SUFFIXES
from onnxprune.data.rows import Rows, numbered
from onnxprune.data.tables import read_table
from onnxprune.errors import DataError

SHARDS = (".npy", ".npz")
_TABLE = "labels.csv"


def read_folder(folder: Path, wants: Sequence[Input]) -> Rows | list[Path]:
    """The images of a folder, or its shards.

    Raises:
        DataError: it holds neither, or both.
    """
    if (folder / _TABLE).is_file():
        return read_table(folder / _TABLE, wants)
    files = sorted(_walk(folder), key=lambda path: path.parts)
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    shards = [path for path in files if path.suffix.lower() in SHARDS]
    if bool(images) == bool(shards):
        found = f"both images and arrays, such as {images[0]} and {shards[0]}" if images else "no data"
        raise DataError(
            f"{folder}: holds {found}; give a folder of images, or of {' or '.join(SHARDS)} files"
        )
    if shards:
        return shards
    if len(wants) != 1:
        raise DataError(
            f"{folder}: holds images for one input, the model wants {listed(wants)}; name the files of each "
            "input in a .csv"
        )
    inside = [path.relative_to(folder).parts for path in images]
    classes = sorted({parts[0] for parts in inside})
    if len(classes) < 2 or any(len(parts) < 2 for parts in inside):
        return Rows(str(folder), {wants[0].name: images})
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[parts[0]] for parts in inside])
    words = f" by its sub-folders ({numbered(classes)})"
    return Rows(str(folder), {wants[0].name: images}, labels, words, classes=len(classes))


def _walk(folder: Path) -> Iterator[Path]:
    """All files but hidden ones, through links, each folder once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent, name) for name in files if not name.startswith("."))
