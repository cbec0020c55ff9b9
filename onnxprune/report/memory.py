"""Memory: the record of what a limit led to."""

from __future__ import annotations

from onnxprune.memory import peak
from onnxprune.report.schema import MemoryUse
from onnxprune.statistics import Plan


def memory_use(plan: Plan | None, predicted: int = 0) -> MemoryUse | None:
    """The record of a run so far: of statistics gathered as `plan` says, and of what else was `predicted`."""
    if plan is None:
        return None
    return MemoryUse(
        limit=plan.limit,
        predicted=max(plan.predicted, predicted),
        peak=peak(),
        passes=len(plan.parts),
        run=plan.run,
        spilled=plan.spilled,
    )
