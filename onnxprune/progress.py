"""Progress: how long work says how far it is, without knowing who shows it.

Work that takes a while opens a stage and advances it::

    with progress.stage("statistics", data.count) as advance:
        for batch in data.batches():
            ...
            advance(batch.count)

The bars of the command line are in `onnxprune.report.console`; the library is silent by default.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Moves a stage on."""

    def __call__(self, steps: int, note: str = "") -> None:
        """By so many units; a `note` that is not empty is shown beside the stage's name from now on."""
        ...


class Progress(Protocol):
    """Whoever shows progress."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """Open a stage of `total` units (None: unknown); the value entered advances it by so many units.

        Stages may be nested. Leaving one ends it, however far it came.
        """
        ...


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A stage nobody sees."""
        return nullcontext(_ignore)


def _ignore(steps: int, note: str = "") -> None:
    pass
