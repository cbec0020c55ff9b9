"""Threads: small layers side by side, each with one BLAS thread; large ones one by one, with all of them.

BLAS shares out a large matrix well. But its threads spin for a while after every call, numpy's and scipy's
each their own: with matrices of a few hundred columns they mostly take the processors from one another and
from onnxruntime. Measured on ResNet-56, two cores: 47 s → 26 s with one. Nothing here wants more processors
than BLAS may use: with OPENBLAS_NUM_THREADS=1 everything is done in turn.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from itertools import groupby
from typing import Any, TypeVar

import scipy.linalg  # noqa: F401  # has a BLAS of its own, which is only found when it is loaded
from threadpoolctl import ThreadpoolController

R = TypeVar("R")
T = TypeVar("T")
Call = tuple[Any, ...]

#: Columns of a layer that BLAS has one thread for: 8 MB of a float64 factor.
ONE_THREAD = 1024
_WORTH = 96  # columns of a problem, below which Python's part of it, that nobody shares, is most of it


def side_by_side(function: Callable[..., R], calls: Iterable[Call], columns: Sequence[int]) -> Iterator[R]:
    """What `function` gives for each of the `calls`, in their order.

    Args:
        function: it depends on its arguments alone.
        calls: its arguments, taken as they are needed.
        columns: of the matrix of each call, which says how large it is.
    """
    workers = _workers()
    for small, group in groupby(zip(calls, columns, strict=True), key=lambda each: each[1] <= ONE_THREAD):
        own = (call for call, _ in group)
        if small and workers > 1:
            yield from _together(function, own, workers)
        else:
            yield from (function(*call) for call in own)


@contextmanager
def blas_for(columns: int) -> Iterator[None]:
    """Inside, BLAS has the threads that are best for a layer of so many columns."""
    _allowed()
    with _libraries().limit(limits=1 if columns <= ONE_THREAD else None, user_api="blas"):
        yield


def in_shares(function: Callable[[T], None], items: Sequence[T], columns: float) -> None:
    """Call `function` with each of many `items`; every processor has its share of them.

    Args:
        function: what it does for one item is apart from what it does for the others.
        items: problems of a few columns each.
        columns: how many, on average.
    """
    workers = _workers() if columns >= _WORTH else 1

    def all_of(share: Sequence[T]) -> None:
        for item in share:
            function(item)

    if columns > ONE_THREAD or workers == 1:
        with blas_for(round(columns)):
            all_of(items)
        return
    for _ in _together(all_of, [(items[first::workers],) for first in range(workers)], workers):
        pass


def _together(function: Callable[..., R], calls: Iterable[Call], workers: int) -> Iterator[R]:
    under_way: deque[Future[R]] = deque()
    with blas_for(ONE_THREAD), ThreadPoolExecutor(workers) as pool:
        for call in calls:
            under_way.append(pool.submit(copy_context().run, function, *call))
            if len(under_way) > workers:  # their arguments take memory, so that not all wait at once
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def processors() -> int:
    """How many this process may use; on a system that does not tell, how many the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _workers() -> int:
    return min(processors(), _allowed())


@cache
def _allowed() -> int:
    """The threads that BLAS had when it was first asked: what it has inside `blas_for` is our doing."""
    blas = (library["num_threads"] for library in _libraries().info() if library["user_api"] == "blas")
    return max(blas, default=1)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
