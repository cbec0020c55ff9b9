"""Files of the command line: where data comes from and results go, checked before any work."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxprune.cli.parameters import NOISE
from onnxprune.errors import OutputError, UsageError
from onnxprune.files import replacing

if TYPE_CHECKING:
    from pydantic import BaseModel

    from onnxprune.data import Source


_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # module:object


def source_of(
    given: str | None,
    model: Path,
    kind: Literal["calibration", "evaluation"],
    preprocess: str | None = None,
    *,
    quiet: bool,
) -> Source | None:
    """The data to use: what was given, None for noise, else the file found for the model, said aloud."""
    from onnxprune.data import discover

    if given is not None:
        return None if given == NOISE else named_source(given, preprocess)
    found = discover(model, kind)
    if found is not None and found.is_relative_to(Path.cwd()):  # reports need not say whose home this is
        found = found.relative_to(Path.cwd())
    if found is not None and not quiet:
        click.echo(f"note: {kind} data: {found}", err=True)
    return found


def named_source(given: str, preprocess: str | None) -> Source:
    """The file, folder or object of that name.

    Raises:
        UsageError: no such object.
        DataError: its module raised something.
    """
    from onnxprune.data import Images, imported

    if _OBJECT.fullmatch(given) and not Path(given).exists():
        source: Source = imported(given)
        return source
    return Images(given, preprocess) if preprocess is not None and _may_be_images(given) else Path(given)


def check_preprocess(preprocess: str | None, *given: str | None) -> None:
    """Refuse, before any work, a preprocessing that cannot be read or that no data `given` asks for."""
    if preprocess is None:
        return
    from onnxprune.data import preprocessing

    preprocessing(preprocess)
    if not any(_may_be_images(name) for name in given if name is not None):
        raise UsageError(f"--preprocess {preprocess}: the data are no folder or .csv of images; leave it out")


def _may_be_images(given: str) -> bool:
    return Path(given).is_dir() or given.lower().endswith(".csv")


def destination(path: Path | None, *taken: Path | str | None, quiet: bool) -> None:
    """Refuse, before any work, a file that cannot be written, or that is one of those `taken`."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise OutputError(f"{path}: {problem}; give another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write; give another file")
    if path.resolve() in {Path(other).resolve() for other in taken if other is not None}:
        raise UsageError(
            f"{path}: is named twice in this command and would be overwritten; give another file"
        )
    if path.is_file() and not quiet:
        click.echo(f"note: {path} exists and will be replaced", err=True)


def is_first_process() -> bool:
    """Whether torch's launcher started this process alone or as its first: the others only compute."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def write_json(path: Path, record: BaseModel) -> None:
    """Write `record`, whole or not at all.

    Raises:
        OutputError: it could not be written, with the system's reason.
    """
    write_text(path, record.model_dump_json(indent=2) + "\n")


def append_text(path: Path, text: str) -> None:
    """Add `text` to the end of a file, which is made if it is not there.

    Raises:
        OutputError: it could not be written, with the system's reason.
    """
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be added to: {reason}; give another file") from error


def write_text(path: Path, text: str) -> None:
    """Write `text`, whole or not at all.

    Raises:
        OutputError: it could not be written, with the system's reason.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
