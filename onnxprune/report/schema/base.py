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


class MemoryUse(Record):
    """What a limit of memory led to, in bytes of resident memory.

    `predicted` is the peak that was predicted, `peak` the one that the system tells (0 where it does not), of
    the whole process. Statistics took `passes` over the data, with `run` samples at once; `spilled` says
    whether they were kept in files.
    """

    limit: int
    predicted: int
    peak: int
    passes: int
    run: int
    spilled: bool


class Skipped(Record):
    """A node left as it was, and why."""

    name: str
    reason: str


class Spread(Record):
    """Median of repeated measurements, between their 10th and 90th percentile."""

    p10: float
    median: float
    p90: float
