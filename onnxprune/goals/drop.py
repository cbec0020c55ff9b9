"""The goal `max_drop`: as small as possible, while a metric falls by at most so much.

The evaluation data is halved. On one half the search bisects the logarithm of what is kept, with a drop taken
to grow as less is kept. The smallest candidate found is then checked on the other half. Being the smallest of
several, it looks better on the first half than it is; where it loses more than allowed on the second, the
next larger one is checked, a few times, and then it is an error. What is promised is the estimate on the
second half; its interval is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxprune.data import Data
from onnxprune.data.parting import halves
from onnxprune.errors import BudgetError
from onnxprune.evaluate import ROUNDING, Measured, measure
from onnxprune.goals.axis import LEAST, Line, halve
from onnxprune.goals.found import Found
from onnxprune.intervals import resolution, wilson
from onnxprune.metric import Metric
from onnxprune.options import Goal
from onnxprune.pipeline import curve_point
from onnxprune.prepared import Candidate, Prepared
from onnxprune.report.schema import CurvePoint, GoalReport, MetricChange, Trial

_TOLERANCE = 1.06  # between what is enough and what is not: seven evaluations of ratios at most
_BACK = 1.25  # at most so many times larger is the next candidate to be checked
_CHECKS = 4


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
    halve(LEAST[line.axis], 1.0, search.passes, _TOLERANCE)
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


class _Search:
    """Candidates by the share they keep; only the smallest that is good enough stays in memory."""

    def __init__(self, prepared: Prepared, line: Line, allowed: float, gauge: _Gauge) -> None:
        self.prepared, self.line, self.allowed, self.gauge = prepared, line, allowed, gauge
        self.tried: dict[float, _Tried] = {}
        self._smallest: tuple[float, Candidate] | None = None
        self._impossible: BudgetError | None = None

    @property
    def passing(self) -> list[float]:
        """Shares that are enough, ascending."""
        return sorted(kept for kept, tried in self.tried.items() if tried.passes)

    def passes(self, kept: float) -> bool:
        """Whether a share is enough on the half to search on; one that is impossible is not."""
        if kept not in self.tried:
            try:
                candidate = self.prepared.prune(self.line.at(kept))
            except BudgetError as error:
                self._impossible = error
                return False
            self._note(kept, candidate)
        return self.tried[kept].passes

    def candidate(self, kept: float) -> Candidate:
        """The candidate of a share, pruned again where it was let go."""
        if self._smallest is not None and self._smallest[0] == kept:
            return self._smallest[1]
        return self.prepared.prune(self.line.at(kept))

    def failure(self) -> BudgetError:
        """Why no candidate is enough."""
        if not self.tried:
            assert self._impossible is not None
            return self._impossible
        kept = max(self.tried)
        return BudgetError(
            f"--max-drop {self.allowed:g} cannot be met: {self.line.flag(kept)}, the most that was kept, "
            f"loses {self.tried[kept].drop:.4g} of {self.gauge.dense.metrics.primary}; allow more, or give "
            "more calibration data"
        )

    def _note(self, kept: float, candidate: Candidate) -> None:
        measured = self.gauge.of(candidate.model)
        drop, value = self.gauge.drop(measured), self.line.value(kept)
        point = curve_point(self.prepared, candidate, self.line.axis, value, measured.metrics.value)
        self.tried[kept] = _Tried(point, drop, drop <= self.allowed + ROUNDING)
        if self.passing and kept == self.passing[0]:
            self._smallest = kept, candidate


def _checked(search: _Search, check: _Gauge, goal: Goal) -> Found:
    """The smallest candidate that is enough on the half held back, too."""
    kept, refused = search.passing[0], list[str]()
    for _ in range(_CHECKS):
        if search.passes(kept):
            candidate = search.candidate(kept)
            measured = check.of(candidate.model)
            if check.drop(measured) <= search.allowed + ROUNDING:
                return _found(search, check, goal, kept, candidate, measured, refused)
            refused.append(f"{search.line.flag(kept)} loses {check.drop(measured):.4g}")
        larger = [share for share in search.passing if share > kept]
        kept = min([kept * _BACK, *larger])
        if kept >= 1:
            break
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
        Trial(value=tried.point.value, reached=tried.drop, enough=tried.passes)
        for tried in search.tried.values()
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
    points = [tried.point for tried in search.tried.values()]
    curve = tuple(point.model_copy(update={"chosen": point.value == value}) for point in points)
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
