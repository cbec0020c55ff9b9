"""The goal `max_bytes`: as much as possible kept in a file of at most so many bytes.

Bytes depend on how many weights each layer keeps, hardly on which: the search goes over sketches, which
repair nothing and so cost little; then the real candidate is pruned, and the aim corrected by what it takes.
"""

from __future__ import annotations

from math import exp, inf, log

from scipy.optimize import brentq

from onnxprune.aims import Goal
from onnxprune.errors import BudgetError
from onnxprune.goals.axis import LEAST, Line
from onnxprune.goals.found import Found
from onnxprune.output import packed_bytes
from onnxprune.pipeline import metadata
from onnxprune.prepared import Candidate, Prepared
from onnxprune.report.schema import GoalReport, Trial

_AIM = 0.99  # of the bytes allowed: sketches are off by less than that
_USED = 0.97  # a file that uses so much of them is good enough
_TRIES = 4
_PRECISION = 1e-3  # of the share kept, relative


def within_bytes(prepared: Prepared, line: Line, goal: Goal, name: str) -> Found:
    """Find the largest candidate that keeps to the goal in a file of this `name`.

    Raises:
        BudgetError: none does; says how small the smallest is.
    """
    assert goal.max_bytes is not None
    search, allowed = _Search(prepared, line, name), goal.max_bytes
    best: tuple[int, float, Candidate] | None = None
    aim, trials = _AIM * allowed, list[Trial]()
    for _ in range(_TRIES):
        kept = search.largest(aim, allowed)
        if any(trial.value == line.value(kept) for trial in trials):
            break  # the steps between candidates are coarse
        candidate = prepared.prune(line.at(kept))
        size = search.bytes(candidate)
        trials.append(Trial(value=line.value(kept), reached=size, enough=size <= allowed))
        if size <= allowed and (best is None or size > best[0]):
            best = size, kept, candidate
        if _USED * allowed <= size <= allowed or (kept == 1 and size <= allowed):
            break
        aim *= _AIM * allowed / size
    if best is None:
        raise BudgetError(
            f"--max-bytes {allowed:,} was not met in {len(trials)} tries, the last of "
            f"{int(trials[-1].reached):,} bytes; give {line.flag(0.9 * kept)}"
        )
    size, kept, candidate = best
    report = GoalReport(
        name=goal.name,
        asked=allowed,
        reached=size,
        target=line.axis,
        value=line.value(kept),
        measured="the file as it is written",
        trials=tuple(trials),
    )
    remark = f"the model fits into {allowed:,} bytes as it is: nothing had to go"
    return Found(candidate, report, warnings=(remark,) if kept == 1 else ())


class _Search:
    """Sketches by the share they keep, and their bytes; None where the share is impossible."""

    def __init__(self, prepared: Prepared, line: Line, name: str) -> None:
        self._prepared, self._line, self._name = prepared, line, name
        self._sketches: dict[float, int | None] = {}
        self._impossible: BudgetError | None = None

    def bytes(self, candidate: Candidate) -> int:
        """Those of a candidate's file."""
        options = candidate.options
        return packed_bytes(candidate.model, options.pack, metadata(options), self._name)

    def largest(self, aim: float, allowed: int) -> float:
        """The largest share whose sketch takes at most `aim` bytes."""
        low, high = log(LEAST[self._line.axis]), 0.0
        if self._excess(high, aim) > 0 and self._excess(low, aim) < 0:
            brentq(self._excess, low, high, args=(aim,), xtol=_PRECISION)
        fitting = [kept for kept, size in self._sketches.items() if size is not None and size <= aim]
        if not fitting:
            raise self._failure(allowed)
        return max(fitting)

    def _excess(self, logarithm: float, aim: float) -> float:
        kept = exp(logarithm)
        if kept not in self._sketches:
            try:
                self._sketches[kept] = self.bytes(self._prepared.sketch(self._line.at(kept)))
            except BudgetError as error:
                self._sketches[kept], self._impossible = None, error
        size = self._sketches[kept]
        return -1.0 if size is None else log(size / aim)

    def _failure(self, allowed: int) -> BudgetError:
        known = [(size, kept) for kept, size in self._sketches.items() if size is not None]
        if not known:
            assert self._impossible is not None
            return self._impossible
        size, kept = min(known, default=(0, inf))
        return BudgetError(
            f"--max-bytes {allowed:,} cannot be met: {self._line.flag(kept)} still takes {size:,} bytes; "
            "--pack fp16 takes fewer, and so do units that go first, with --macs"
        )
