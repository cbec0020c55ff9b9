"""What a search finds, whatever its goal was."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.prepared import Candidate
from onnxprune.report.schema import CurvePoint, GoalReport, MetricChange


@dataclass(frozen=True)
class Found:
    """The candidate to write, and what the report says of the search; `metric` where it was measured."""

    candidate: Candidate
    goal: GoalReport
    curve: tuple[CurvePoint, ...] = ()
    metric: MetricChange | None = None
    warnings: tuple[str, ...] = ()
