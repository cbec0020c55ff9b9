"""Connection: a Ray cluster, found or started on this machine, and what of it every worker gets."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from onnxprune.errors import RuntimeUnavailableError, UsageError
from onnxprune.session import Provider
from onnxprune.threads import processors

LOCAL = "local"
_SECONDS = 5.0  # for a cluster to answer


@dataclass(frozen=True)
class Cluster:
    """Ray, how many workers there are to be, and the threads and GPUs (or share of one) that each gets.

    `notes` say what befell them.
    """

    ray: Any
    workers: int
    threads: int
    gpus: float = 0
    notes: list[str] = field(default_factory=list)

    @property
    def losses(self) -> tuple[type[Exception], ...]:
        """What is raised where a process or a machine was lost."""
        errors = self.ray.exceptions
        return (
            errors.RayActorError,
            errors.ObjectLostError,
            errors.OutOfMemoryError,
            errors.WorkerCrashedError,
        )

    def get(self, task: Any) -> Any:
        """The result of a task; what went wrong in it is raised as it was raised there."""
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for a worker."""
        return {"num_cpus": self.threads, "num_gpus": self.gpus}


_CURRENT: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


def require(workers: int | None = None) -> Any:
    """Ray, if it can be used with so many workers.

    Raises:
        UsageError: fewer than one.
        RuntimeUnavailableError: Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: must be 1 or more")
    try:
        import ray
    except ImportError as error:
        raise RuntimeUnavailableError(
            "--ray: ray is not installed; install it with `pip install 'onnxprune[ray]'`"
        ) from error
    return ray


@contextmanager
def connected(address: str, workers: int | None = None, provider: Provider = "auto") -> Iterator[Cluster]:
    """The cluster at `address`, or one of this machine's processors, for all that is done in the context.

    Statistics of a model are gathered there, and what is done layer by layer is spread over it. Where the
    program has connected to Ray already, it is that cluster, and it stays.

    Args:
        address: `local`, `auto` (the one this machine belongs to), or as `ray.init` takes it.
        workers: how many there are to be; if None, one a processor on a cluster that is started here, else
            one a machine, or a GPU where they are used.
        provider: where onnxruntime runs; workers get GPUs unless it is `cpu`.

    Raises:
        UsageError: fewer than one worker.
        RuntimeUnavailableError: no Ray, no such cluster, or one without a GPU where `cuda` is asked for.
    """
    ray = require(workers)
    own = not ray.is_initialized()
    if own:
        _start(ray, address, workers)
    try:
        cluster = _placed(ray, workers or (processors() if own and address == LOCAL else None), provider)
        token = _CURRENT.set(cluster)
        try:
            yield cluster
        finally:
            _CURRENT.reset(token)
    finally:
        if own:
            ray.shutdown()


def current() -> Cluster | None:
    """That of the innermost context, if there is one."""
    return _CURRENT.get()


def _start(ray: Any, address: str, workers: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for a report to its makers
    given: dict[str, Any] = {"address": address}
    if address == LOCAL:  # more workers than processors share them
        given |= {"num_cpus": max(processors(), workers or 0), "include_dashboard": False}
    try:
        _try(address)
        ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RuntimeUnavailableError(
            f"--ray {address}: no Ray cluster answers there ({reason}); start one with `ray start --head`, "
            "or use --ray local"
        ) from error
    # Ray prints the death of a worker among our results, whatever it is told of logs: we say it ourselves
    vars(ray._private.worker)["_worker_logs_enabled"] = False


def _try(address: str) -> None:
    """Ray asks for two minutes whether anybody is there: ask ourselves, for a few seconds.

    Raises:
        OSError: nobody is.
    """
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:([0-9]{1,5})", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), _SECONDS).close()


def _placed(ray: Any, workers: int | None, provider: Provider) -> Cluster:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines) if provider != "cpu" else 0
    if provider == "cuda" and not gpus:
        raise RuntimeUnavailableError(
            "--provider cuda: the cluster has no GPU that Ray knows of; use --provider cpu"
        )
    processors = [int(machine.get("CPU", 0)) for machine in machines]
    workers = workers or gpus or max(1, sum(count > 0 for count in processors))
    share = 1 / ceil(workers / gpus) if gpus else 0
    return Cluster(ray, workers, threads(processors, workers), share)


def threads(processors: Sequence[int], workers: int) -> int:
    """The most that each of the workers can have, when machines with so many processors share them out.

    At least one: where there are fewer processors than workers, some have to wait until others are done.
    """
    most = range(max(processors, default=1), 1, -1)
    return next((each for each in most if sum(count // each for count in processors) >= workers), 1)
