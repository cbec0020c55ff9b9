"""Terminal: the screen itself: width, notes and warnings, tables, bars with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from onnxprune.progress import Advance

_PIPE_WIDTH = 160  # a pipe has no width: wide enough for node names, narrow enough to read


class ConsoleProgress:
    """Bars with the time left; nested stages are shown under one another and vanish when done."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=screen(stderr=True), transient=True)
        self._depth = 0

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show a bar for as long as the stage lasts."""
        if self._depth == 0:
            self._bars.start()
        self._depth += 1
        task = self._bars.add_task(name, total=total)

        def advance(steps: int, note: str = "") -> None:
            self._bars.advance(task, steps)
            if note:
                self._bars.update(task, description=f"{name}, {note}")

        try:
            yield advance
        finally:
            self._bars.remove_task(task)
            self._depth -= 1
            if self._depth == 0:
                self._bars.stop()


def warn(message: str) -> None:
    """One line on stderr that is not to be missed."""
    screen(stderr=True).print(f"warning: {message}", style="bold yellow", soft_wrap=True)


def note(message: str) -> None:
    """One line on stderr."""
    screen(stderr=True).print(f"note: {message}", style="dim", soft_wrap=True)


def table(columns: Iterable[str], rows: Iterable[tuple[str, ...]], left: int) -> None:
    """Print a table whose first `left` columns are text and the others figures."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    screen().print(grid)
    screen().print()


def screen(*, stderr: bool = False) -> Console:
    """A console that takes names with brackets as they are."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, markup=False, width=None if terminal else _PIPE_WIDTH)
