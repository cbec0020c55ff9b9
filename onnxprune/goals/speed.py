"""The goal `speedup`: as much as possible kept of a network that runs so many times as fast.

Speed is measured in onnxruntime, never counted, and depends on widths only: the search goes over sketches,
which repair nothing. Calls of the dense model stand between those of the candidate, and the median of their
ratios counts, as in `bench`. The answer is measured once more in the form in which it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from onnxprune.aims import Goal
from onnxprune.bench import first_samples, race
from onnxprune.data.inputs import fixed_batch
from onnxprune.errors import BudgetError, UsageError
from onnxprune.goals.axis import LEAST, Line, halve
from onnxprune.goals.found import Found
from onnxprune.output import as_written
from onnxprune.prepared import Candidate, Prepared
from onnxprune.report.schema import GoalReport, Spread, Trial

Race = Callable[[ir.Model | Path, ir.Model], Spread]  # how many times as fast the second one is

_TOLERANCE = 1.04
_MARGIN = 1.02  # what a sketch is to have in reserve: the last measurement is as noisy as the first
_BACK = 0.93  # the next share, where the answer turns out too slow
_TRIES = 4


def within_time(prepared: Prepared, line: Line, goal: Goal, race: Race | None = None) -> Found:
    """Find the largest candidate that keeps to the goal.

    Args:
        prepared: the model.
        line: the budgets to search.
        goal: the speed-up, the batch and the threads.
        race: how speed is measured; in onnxruntime if None.

    Raises:
        BudgetError: none does; says how fast the fastest is.
        UsageError: a batch size that the model does not take.
    """
    assert goal.speedup is not None
    search = _Search(prepared, line, goal.speedup, race or _in_onnxruntime(prepared, line, goal))
    low, _ = halve(LEAST[line.axis], 1.0, lambda kept: not search.fast(kept), _TOLERANCE)
    if not any(trial.enough for trial in search.trials):
        raise search.failure()
    kept = low
    for _ in range(_TRIES):
        candidate = prepared.prune(line.at(kept))
        measured = search.race(candidate)
        if measured.median >= goal.speedup:
            return Found(candidate, _report(search, goal, kept, measured))
        kept = search.next_after(kept)
    raise search.failure()


class _Search:
    """Speeds of sketches, by the share they keep."""

    def __init__(self, prepared: Prepared, line: Line, wanted: float, race: Race) -> None:
        self._prepared, self.line, self._wanted, self._race = prepared, line, wanted, race
        self.trials: list[Trial] = []
        self._impossible: BudgetError | None = None

    def fast(self, kept: float) -> bool:
        """Whether a share is fast enough; one that is impossible would be."""
        try:
            sketch = self._prepared.sketch(self.line.at(kept))
        except BudgetError as error:
            self._impossible = error
            return True
        speedup = self.race(sketch).median
        enough = speedup >= _MARGIN * self._wanted
        self.trials.append(Trial(value=self.line.value(kept), reached=speedup, enough=enough))
        return enough

    def next_after(self, kept: float) -> float:
        """The next share to try, after one that looked fast enough and was not."""
        while (kept := kept * _BACK) > LEAST[self.line.axis]:
            if self.fast(kept):
                return kept
        raise self.failure()

    def race(self, candidate: Candidate) -> Spread:
        """The speed-up of a candidate as it would be written, over the file it was made from."""
        dense = self._prepared.model
        with self._prepared.clock.stage("bench"):
            return self._race(dense.path or dense.ir, as_written(candidate.model, candidate.options.pack))

    def failure(self) -> BudgetError:
        """Why nothing is fast enough."""
        if not self.trials:
            assert self._impossible is not None
            return self._impossible
        best = max(self.trials, key=lambda trial: trial.reached)
        return BudgetError(
            f"--speedup {self._wanted:g} was not reached: the fastest, --{self.line.axis} {best.value:g}, "
            f"runs {best.reached:.2f} times as fast; ask for less, or allow more with --min-units 0"
        )


def _in_onnxruntime(prepared: Prepared, line: Line, goal: Goal) -> Race:
    fixed = fixed_batch(prepared.source.inputs)
    if fixed not in (None, goal.batch or fixed):
        raise UsageError(f"--batch {goal.batch}: the model takes batches of exactly {fixed}")
    feeds = first_samples(prepared.source, fixed or goal.batch or 1)
    provider = line.at(1.0).provider
    return lambda dense, model: race(dense, model, feeds, threads=goal.threads, provider=provider)


def _report(search: _Search, goal: Goal, kept: float, measured: Spread) -> GoalReport:
    assert goal.speedup is not None
    threads = "" if goal.threads is None else f", --threads {goal.threads}"
    return GoalReport(
        name=goal.name,
        asked=goal.speedup,
        reached=measured.median,
        interval=(measured.p10, measured.p90),
        target=search.line.axis,
        value=search.line.value(kept),
        measured=f"in onnxruntime, --batch {goal.batch or 1}{threads}, in turns with the dense model",
        trials=tuple(search.trials),
    )
