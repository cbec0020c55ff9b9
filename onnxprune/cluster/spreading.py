"""Spreading: what is done layer by layer, such as inverses and surgeons, by all processors there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from onnxprune.cluster.connection import Cluster, current
from onnxprune.errors import RuntimeUnavailableError
from onnxprune.threads import side_by_side

R = TypeVar("R")

_AHEAD = (
    2  # tasks a worker that are under way: their arrays take memory, so that not all layers are sent at once
)


def spread(
    function: Callable[..., R], calls: Iterable[tuple[Any, ...]], columns: Sequence[int] | None = None
) -> Iterator[R]:
    """What `function` gives for each of the `calls`, in their order: on the cluster of the context, or here.

    Args:
        function: one of a module, which depends on its arguments alone.
        calls: its arguments, taken as they are needed.
        columns: of the matrix of each call; without them calls that are not for a cluster are made in turn.

    Raises:
        OnnxPruneError: as the function raises it.
        RuntimeUnavailableError: tasks are lost on the cluster again and again.
    """
    cluster = current()
    if cluster is not None:
        return _on(cluster, function, calls)
    if columns is not None:
        return side_by_side(function, calls, columns)
    return (function(*call) for call in calls)


def _on(cluster: Cluster, function: Callable[..., R], calls: Iterable[tuple[Any, ...]]) -> Iterator[R]:
    task = cluster.ray.remote(num_cpus=cluster.threads)(function)  # Ray repeats a task that is lost
    under_way: deque[Any] = deque()
    for call in calls:
        under_way.append(task.remote(*call))
        if len(under_way) >= _AHEAD * cluster.workers:
            yield _result(cluster, under_way.popleft())
    while under_way:
        yield _result(cluster, under_way.popleft())


def _result(cluster: Cluster, task: Any) -> Any:
    try:
        return deepcopy(cluster.get(task))  # what comes from Ray lies in memory that goes with it
    except cluster.losses as error:
        raise RuntimeUnavailableError(
            f"--ray: a task was lost on the cluster again and again ({error}); if memory has run out, use "
            "fewer --workers"
        ) from error
