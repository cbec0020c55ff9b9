"""What all commands share: how a result ends up on the screen and in files, progress, words of warning."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli.files import destination, write_json, write_text
from onnxprune.cli.program import command_line
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from onnxprune.cluster import Cluster
    from onnxprune.progress import Progress

DATA_FREE = "data-free: random noise instead of data costs accuracy; give real data with --data"


def warn(warnings: Iterable[str]) -> None:
    """Show warnings, but for the one about noise, which was said before the work."""
    from onnxprune.report import terminal

    for warning in warnings:
        if not warning.startswith("data-free"):
            terminal.warn(warning)


def page_destination(page: Path | None, *taken: Path | str | None, quiet: bool) -> None:
    """Refuse, before any work, a page that cannot be made or written."""
    if page is None:
        return
    from onnxprune.report import html

    html.require()
    destination(page, *taken, quiet=quiet)


def finish(record: BaseModel, show: Any, json: Path | None, page: Path | None = None) -> None:
    """Print the record by `show`, unless that is None, and write it where asked for."""
    if "command" in type(record).model_fields:
        record = record.model_copy(update={"command": command_line()})
    if show is not None:
        show(record)
    if json is not None:
        write_json(json, record)
    if page is not None:
        from onnxprune.report import html

        write_text(page, html.page(record))


def on_cluster(ray: str | None, workers: int | None, given: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """The context in which work is shared out on the cluster asked for, if one is; `given` has the provider.

    Raises:
        UsageError: workers without a cluster, or fewer than one.
        RuntimeUnavailableError: Ray is not installed.
    """
    if ray is None:
        if workers is not None:
            raise UsageError(f"--workers {workers} goes with --ray; `--ray local` starts them here")
        return nullcontext()

    from onnxprune import cluster

    cluster.require(workers)
    return _noting(cluster.connected(ray, workers, given.get("provider") or "auto"))


@contextmanager
def _noting(connection: AbstractContextManager[Cluster]) -> Iterator[None]:
    with connection as there:
        yield
    warn(there.notes)


def progress_of(quiet: bool) -> Progress | None:
    """Bars, if there is a terminal to show them."""
    if quiet or not sys.stderr.isatty():
        return None
    from onnxprune.report.terminal import ConsoleProgress

    return ConsoleProgress()
