"""Small layers side by side with one BLAS thread each, large ones alone with all; results in their order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from onnxprune import threads
from onnxprune.cluster import spread
from onnxprune.errors import StatisticsError
from onnxprune.threads import blas_for, in_shares, side_by_side

SMALL, LARGE = 8, threads.ONE_THREAD + 1


def blas_threads() -> int:
    return max(each["num_threads"] for each in threads._libraries().info() if each["user_api"] == "blas")


def seen(number: int) -> tuple[int, int, bool]:
    """The argument, how many threads BLAS has, and whether this is the main thread."""
    time.sleep(0.002 * (5 - number % 5))  # the first to begin are the last to end
    return number, blas_threads(), threading.current_thread() is threading.main_thread()


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four processors for all of BLAS, whatever this machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(threads, "_allowed", lambda: 4)
    with threads._libraries().limit(limits=4, user_api="blas"):
        yield


@pytest.mark.usefixtures("four")
def test_results_come_in_order_small_ones_from_threads_and_large_ones_from_all_of_blas() -> None:
    columns = [SMALL, SMALL, SMALL, LARGE, SMALL, SMALL, LARGE, LARGE]
    found = list(side_by_side(seen, ((n,) for n in range(8)), columns))
    assert [number for number, _, _ in found] == list(range(8))
    for width, (_, blas, alone) in zip(columns, found, strict=True):
        assert (blas, alone) == ((1, False) if width == SMALL else (4, True))
    assert blas_threads() == 4


@pytest.mark.usefixtures("four")
def test_as_many_small_ones_run_at_once_as_there_are_processors() -> None:
    together = threading.Barrier(4, timeout=30)  # passed by four at once, or not at all
    assert len(list(side_by_side(lambda _: together.wait(), ((n,) for n in range(8)), [SMALL] * 8))) == 8


@pytest.mark.usefixtures("four")
def test_arguments_are_not_made_long_before_they_are_needed() -> None:
    made: list[int] = []

    def calls() -> Iterator[tuple[int]]:
        for number in range(40):
            made.append(number)
            yield (number,)

    for done, _ in enumerate(side_by_side(seen, calls(), [SMALL] * 40), 1):
        assert len(made) - done <= 4


@pytest.mark.usefixtures("four")
def test_an_error_comes_out_as_it_is_and_blas_has_its_threads_back() -> None:
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda n: 1 // n, ((n,) for n in (2, 1, 0, 3)), [SMALL] * 4))
    assert blas_threads() == 4


@pytest.mark.usefixtures("four")
def test_floating_point_errors_are_treated_in_threads_as_where_they_were_started() -> None:
    with np.errstate(all="ignore"):
        (found,) = side_by_side(lambda: np.geterr()["divide"], [()], [SMALL])
    assert found == "ignore"


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("columns", "at_once"), [(threads._WORTH - 1, 1), (threads._WORTH, 4), (LARGE, 1)])
def test_many_small_problems_are_shared_out_where_it_is_worth_it(columns: int, at_once: int) -> None:
    done: list[tuple[int, int, int]] = []

    def solve(number: int) -> None:
        time.sleep(0.001)
        done.append((number, blas_threads(), threading.get_ident()))

    in_shares(solve, range(20), columns)
    assert sorted(number for number, _, _ in done) == list(range(20))
    assert {blas for _, blas, _ in done} == {4 if columns == LARGE else 1}
    assert len({thread for _, _, thread in done}) == at_once


@pytest.mark.usefixtures("four")
def test_an_error_in_a_share_comes_out() -> None:
    def solve(number: int) -> None:
        if number == 7:
            raise StatisticsError("the seventh")

    with pytest.raises(StatisticsError, match="the seventh"):
        in_shares(solve, range(20), threads._WORTH)


def test_with_one_blas_thread_everything_is_done_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets OPENBLAS_NUM_THREADS=1 wants one processor to be used, not all by one thread each."""
    with threads._libraries().limit(limits=1, user_api="blas"):
        threads._allowed.cache_clear()
        try:
            found = list(side_by_side(seen, ((n,) for n in range(3)), [SMALL] * 3))
        finally:
            threads._allowed.cache_clear()
    assert found == [(0, 1, True), (1, 1, True), (2, 1, True)]


@pytest.mark.usefixtures("four")
def test_what_blas_has_for_a_small_layer_does_not_say_how_many_processors_there_are() -> None:
    """Inside a small layer's refit BLAS has one thread, and its rows are shared out all the same."""
    together = threading.Barrier(4, timeout=30)
    with blas_for(SMALL):
        in_shares(lambda _: together.wait() and None, range(4), threads._WORTH)


def test_without_sizes_nothing_runs_side_by_side() -> None:
    """Where memory is limited, one layer's matrices are what was counted."""
    assert all(alone for _, _, alone in spread(seen, ((n,) for n in range(3))))


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("columns", "wanted"), [(SMALL, 1), (LARGE, 4)])
def test_blas_has_threads_for_large_matrices(columns: int, wanted: int) -> None:
    with blas_for(columns):
        assert blas_threads() == wanted
    assert blas_threads() == 4


def test_a_system_that_does_not_tell_which_processors_are_ours_has_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MacOS and Windows: there the call is missing, and no session could be opened."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads.processors() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.processors() == 1
