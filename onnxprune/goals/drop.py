"""The goal `max_drop`: as small as possible, while a metric falls by at most so much.

The evaluation data is halved. On one half the search bisects the logarithm of what is kept, with a drop taken
to grow as less is kept. It bisects over drafts, pruned with a fraction of the effort; where they point to is
pruned in full, and so are larger shares until one is enough. That one is what `--ratio` gives, and is
checked on the other half. Being the smallest of several, it looks better on the first half than it is; where
it loses more than allowed on the second, larger ones are checked, a few times, each as a draft first, and
then it is an error. What is promised is the estimate on the second half; its interval is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

from onnxprune.aims import Goal
from onnxprune.data import Data
from onnxprune.data.parting import halves
from onnxprune.errors import BudgetError
from onnxprune.evaluate import ROUNDING, Measured, measure
from onnxprune.goals.axis import LEAST, Line, halve
from onnxprune.goals.found import Found
from onnxprune.intervals import resolution, wilson
from onnxprune.metric import Metric
from onnxprune.options import Options
from onnxprune.pipeline import curve_point
from onnxprune.prepared import Candidate, Prepared
from onnxprune.report.schema import CurvePoint, GoalReport, MetricChange, Trial

_TOLERANCE = 1.06  # between what is enough and what is not: seven drafts of ratios at most
_BACK = 1.25  # at most so many times larger is the next candidate to be checked
_NEAR = 1.1  # at least so many times, for one that is known already
_MOST = 0.99  # more is not worth pruning
_CHECKS = 6  # three times as large as the first, by then


def within_drop(
    prepared: Prepared, line: Line, goal: Goal, evaluation: Data, metric: Metric | str | None
) -> Found:
    """Find the smallest candidate that keeps to the goal.

    Raises:
        BudgetError: none does; says what the best one lost.
        DataError: too little evaluation data.
    """
    assert goal.max_drop is not None
    searched_on, held_back = halves(evaluation, line.at(1.0).seed)
    search = _Search(prepared, line, goal.max_drop, _Gauge(prepared, line, searched_on, metric))
    halve(LEAST[line.axis], 1.0, search.promises, _TOLERANCE)
    search.settle()
    if not search.passing:
        raise search.failure()
    return _checked(search, _Gauge(prepared, line, held_back, metric), goal)


class _Gauge:
    """Measures candidates on one half, against the dense model on the same half."""

    def __init__(self, prepared: Prepared, line: Line, data: Data, metric: Metric | str | None) -> None:
        self.data, self._prepared = data, prepared
        self._how: dict[str, Any] = {"reference": prepared.model.ir, "metric": metric}
        self._how |= {"provider": line.at(1.0).provider, "progress": prepared.progress}
        self.dense = self.of(prepared.model.ir)
        if metric is None and self.dense.metrics.primary == "top1":
            self._how["reference"] = None  # labels are enough: the dense model need not run every time

    def of(self, model: Any) -> Measured:
        """The figures of a graph."""
        with self._prepared.clock.stage("evaluate"):
            return measure(model, self.data, **self._how)

    def drop(self, measured: Measured) -> float:
        """By how much the primary figure is below the dense model's."""
        return measured.drop(self.dense)


@dataclass
class _Tried:
    point: CurvePoint
    drop: float
    passes: bool
    draft: bool


class _Search:
    """Candidates by the share they keep; the smallest that is good enough and the last stay in memory."""

    def __init__(self, prepared: Prepared, line: Line, allowed: float, gauge: _Gauge) -> None:
        self.prepared, self.line, self.allowed, self.gauge = prepared, line, allowed, gauge
        self.tried: list[_Tried] = []  # in the order of trying
        self._drafts: dict[float, _Tried] = {}
        self._whole: dict[float, _Tried] = {}  # those pruned in full
        self._held: dict[float, Candidate] = {}
        self._impossible: BudgetError | None = None

    @property
    def passing(self) -> list[float]:
        """Shares that are enough, pruned in full, ascending."""
        return sorted(kept for kept, tried in self._whole.items() if tried.passes)

    def promises(self, kept: float) -> bool:
        """Whether the draft of a share is enough on the half to search on; one that is impossible is not."""
        return self._passes(kept, self._drafts, self.prepared.draft)

    def passes(self, kept: float) -> bool:
        """Whether a share is, pruned in full."""
        return self._passes(kept, self._whole, self.prepared.prune)

    def settle(self) -> None:
        """From where drafts point to, go to larger shares in growing steps until one is enough in full."""
        if not self._drafts:
            return
        promising = [kept for kept, tried in self._drafts.items() if tried.passes]
        kept, step = min(promising, default=max(self._drafts)), _TOLERANCE
        while not self.passes(kept):
            kept, step = _larger(kept, step), step**2
            if kept > _MOST:
                return

    def draft(self, kept: float) -> Candidate:
        """The draft of a share that is not known in full."""
        candidate = self.prepared.draft(self.line.at(kept))
        self._note(kept, candidate)
        return candidate

    def candidate(self, kept: float) -> Candidate:
        """The candidate of a share, pruned again where it was let go."""
        return self._held.get(kept) or self.prepared.prune(self.line.at(kept))

    def failure(self) -> BudgetError:
        """Why no candidate is enough."""
        if not self._whole:
            assert self._impossible is not None
            return self._impossible
        kept = max(self._whole)
        return BudgetError(
            f"--max-drop {self.allowed:g} cannot be met: {self.line.flag(kept)}, the most that was kept, "
            f"loses {self._whole[kept].drop:.4g} of {self.gauge.dense.metrics.primary}; allow more, or give "
            "more calibration data"
        )

    def _passes(self, kept: float, known: dict[float, _Tried], prune: Callable[[Options], Candidate]) -> bool:
        if kept not in known:
            try:
                candidate = prune(self.line.at(kept))
            except BudgetError as error:
                self._impossible = error
                return False
            self._note(kept, candidate)
        return known[kept].passes

    def _note(self, kept: float, candidate: Candidate) -> None:
        measured = self.gauge.of(candidate.model)
        drop, value = self.gauge.drop(measured), self.line.value(kept)
        point = curve_point(self.prepared, candidate, self.line.axis, value, measured.metrics.value)
        tried = _Tried(point, drop, drop <= self.allowed + ROUNDING, candidate.draft)
        self.tried.append(tried)
        self._drafts.setdefault(kept, tried)  # where nothing is left out a draft is the whole
        if candidate.draft:
            return
        self._whole[kept] = tried
        self._held[kept] = candidate
        self._held = {share: self._held[share] for share in self._held if share in (kept, *self.passing[:1])}


def _larger(kept: float, times: float) -> float:
    """So many times a share; no further than half of the way to all of it, in logarithms."""
    return min(times * kept, sqrt(kept))


def _checked(search: _Search, check: _Gauge, goal: Goal) -> Found:
    """The smallest candidate that is enough on the half held back, too."""
    kept, refused = search.passing[0], list[str]()

    def holds(candidate: Candidate, measured: Measured) -> bool:
        drop, what = check.drop(measured), ", a draft," if candidate.draft else ""
        if drop > search.allowed + ROUNDING:
            refused.append(f"{search.line.flag(kept)}{what} loses {drop:.4g}")
        return drop <= search.allowed + ROUNDING

    for _ in range(_CHECKS):
        likely = True
        if kept not in search.passing:
            draft = search.draft(kept)
            likely = holds(draft, check.of(draft.model))
        if likely and search.passes(kept):
            candidate = search.candidate(kept)
            measured = check.of(candidate.model)
            if holds(candidate, measured):
                return _found(search, check, goal, kept, candidate, measured, refused)
        known = [share for share in search.passing if _NEAR * kept <= share <= _BACK * kept]
        kept = max(known, default=_larger(kept, _BACK))
    raise BudgetError(
        f"--max-drop {search.allowed:g} holds on the samples searched on, but not on the "
        f"{check.data.count:,} held back: {', '.join(refused)}; give more evaluation data, or allow more"
    )


def _found(
    search: _Search,
    check: _Gauge,
    goal: Goal,
    kept: float,
    candidate: Candidate,
    measured: Measured,
    refused: list[str],
) -> Found:
    hits, dense, value = measured.hits, check.dense.metrics, search.line.value(kept)
    trials = [
        Trial(value=tried.point.value, reached=tried.drop, enough=tried.passes, draft=tried.draft)
        for tried in search.tried
    ]
    report = GoalReport(
        name=goal.name,
        asked=search.allowed,
        reached=check.drop(measured),
        interval=measured.drop_interval(check.dense),
        target=search.line.axis,
        value=value,
        measured=check.data.description,
        trials=tuple(trials),
        searched=search.gauge.data.description,
        dense=search.gauge.dense.metrics.value,
    )
    change = MetricChange(
        name=dense.primary,
        before=dense.value,
        after=measured.metrics.value,
        interval=None if hits is None else wilson(hits),
    )
    curve = tuple(
        tried.point.model_copy(update={"chosen": not tried.draft and tried.point.value == value})
        for tried in search.tried
    )
    warnings = (*measured.metrics.notes, *_remarks(search, check, refused))
    return Found(candidate, report, curve, change, warnings)


def _remarks(search: _Search, check: _Gauge, refused: list[str]) -> list[str]:
    remarks, count = [], check.data.count
    if check.dense.hits is not None and resolution(count) > search.allowed:
        remarks.append(
            f"{count:,} samples held back cannot tell a drop below {resolution(count):.2g} from none (95 %); "
            f"--max-drop {search.allowed:g} is kept to by the estimate, and by no more than that"
        )
    if refused:
        remarks.append(
            f"stepped back on the samples held back: {', '.join(refused)}; being the best of "
            f"{len(refused) + 1} looks, the drop there is a little optimistic"
        )
    return remarks
