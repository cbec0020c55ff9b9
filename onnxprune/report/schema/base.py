"""Base: what every record is, and the small ones that all use."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer


def _read(given: Any) -> Any:
    return given.split() if isinstance(given, str) else given


def _written(row: tuple[float, ...]) -> str:
    return " ".join(map(str, row))


_AS_TEXT = BeforeValidator(_read), PlainSerializer(_written, when_used="json")
Counts = Annotated[tuple[int, ...], *_AS_TEXT]
Costs = Annotated[tuple[float, ...], *_AS_TEXT]


class Record(BaseModel):
    """Base of all records: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricChange(Record):
    """One figure of merit, before and after; `name` as in `onnxprune.evaluate.Metrics.values`.

    `interval` is Wilson's 95 % interval of `after`, where it was asked for and is a share of samples.
    """

    name: str
    before: float
    after: float
    interval: tuple[float, float] | None = None


class Skipped(Record):
    """A node left as it was, and why."""

    name: str
    reason: str


class Spread(Record):
    """Median of repeated measurements, between their 10th and 90th percentile."""

    p10: float
    median: float
    p90: float
