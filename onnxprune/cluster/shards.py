"""Shards: runs of batches that are handed out to whoever is free, and come back when a worker is lost."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, log2

_EACH = (
    8  # shards a worker at least, where there are batches enough: a slow one then holds up the others little
)


class Shards:
    """The batches of a data set, in runs of equal length, a power of two as the groups of sums that wait.

    A worker goes on where it was, so that it reads in order and what waits for a group meets the rest of it;
    one that cannot begins in the middle of the longest run that is open, and leaves the first half to the
    worker that is coming along there.
    """

    def __init__(self, batches: int, workers: int) -> None:
        self._batches = batches
        self._length = 1 << max(0, int(log2(max(1.0, batches / (_EACH * workers)))))
        self._open = set(range(ceil(batches / self._length)))

    def __bool__(self) -> bool:
        """Whether any is to be handed out."""
        return bool(self._open)

    def numbers(self, shard: int) -> range:
        """Its batches."""
        first = shard * self._length
        return range(first, min(first + self._length, self._batches))

    def take(self, last: int | None) -> int | None:
        """One for a worker whose last shard was `last`; None if all are handed out."""
        if not self._open:
            return None
        following = None if last is None else last + 1
        chosen = following if following in self._open else self._elsewhere()
        self._open.remove(chosen)
        return chosen

    def put_back(self, shards: Iterable[int]) -> None:
        """Let them be handed out again."""
        self._open.update(shards)

    def _elsewhere(self) -> int:
        runs: list[list[int]] = []
        for shard in sorted(self._open):
            if runs and runs[-1][-1] == shard - 1:
                runs[-1].append(shard)
            else:
                runs.append([shard])
        longest = max(runs, key=len)
        return longest[len(longest) // 2 if longest[0] else 0]
