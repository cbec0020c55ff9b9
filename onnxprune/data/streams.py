"""Streams: feeds that come one after the other, pulled once, as far as they are asked for, and kept.

They come from a reader as onnxruntime's quantiser takes them, from a generator or any other iterable that is
no sequence, or from an object named on the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.inputs import Array
from onnxprune.data.storage import Storage
from onnxprune.errors import DataError, OnnxPruneError, UsageError
from onnxprune.plugins import module_here

ACCEPTED = (
    "give a file, a folder, an array, mappings from input name to array, or a reader whose get_next() gives "
    "such mappings"
)


class Stream:
    """The feeds of an iterator, as often as wanted; it is asked for each of them once."""

    def __init__(self, feeds: Iterator[Any], where: str) -> None:
        self.where = where
        self._feeds, self._storage = feeds, Storage()
        self._kept: list[Mapping[str, Array]] = []

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        number = 0
        while number < len(self._kept) or self._pull():
            yield self._kept[number]
            number += 1

    def _pull(self) -> bool:
        """Whether there was another feed."""
        number = len(self._kept)
        with _told(f"{self.where}: feed {number}"):
            feed = next(self._feeds, None)
            if feed is None:
                return False
            if not isinstance(feed, Mapping):
                raise DataError(f"{self.where}: cannot use {type(feed).__name__} as a feed; {ACCEPTED}")
            self._kept.append({name: self._storage.keep(np.asarray(value)) for name, value in feed.items()})
        return True


def repeatable(source: Any, where: str = "feeds") -> Any:
    """`source` as something that can be read more than once: what cannot is made a `Stream`.

    Functions and classes without arguments are called for what they return.

    Raises:
        DataError: such a call failed.
    """
    reads = hasattr(source, "get_next")
    if isinstance(source, type) or (callable(source) and not reads and not hasattr(source, "__iter__")):
        with _told(f"{where}: calling it"):
            source = source()
        reads = hasattr(source, "get_next")
    if reads:
        return Stream(iter(source.get_next, None), where)
    known = (str, Path, np.ndarray, Mapping, Sequence, Stream)
    if isinstance(source, Iterable) and not isinstance(source, known):
        with _told(f"{where}: starting it"):
            return Stream(iter(source), where)
    return source


def imported(name: str) -> Any:
    """The object `module:object`, looked for in the working directory too, as a source that is repeatable.

    Raises:
        UsageError: no such module or object.
        DataError: the module raised something.
    """
    module, _, path = name.partition(":")
    with _told(f"{name}: importing it"):
        found = module_here(module)
    if isinstance(found, str):
        raise UsageError(f"{name}: there is no module {found!r} in {Path.cwd()}, nor installed")
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise UsageError(f"{name}: {module} has no {attribute!r}; name a reader, a function, or feeds")
        found = getattr(found, attribute)
    return repeatable(found, name)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say in one sentence what the user's own code raises."""
    try:
        yield
    except OnnxPruneError:
        raise
    except (Exception, SystemExit) as error:
        said = f": {error}" if str(error) else ""
        raise DataError(f"{what} raised {type(error).__name__}{said}") from error
