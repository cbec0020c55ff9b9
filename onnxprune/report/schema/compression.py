"""One compression: layers, units, stages, the goal it kept to and the curve it is on."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from onnxprune.report.schema.base import Counts, MemoryUse, MetricChange, Record, Skipped


class Histogram(Record):
    """Weights by value, zeros left out, before and after: counts in bins of equal width over −limit…limit.

    What lies beyond the limit is counted in the outermost bins.
    """

    limit: float
    before: Counts
    after: Counts


class SaliencyMap(Record):
    """The dense model's weights by magnitude and importance, those kept and those pruned.

    `magnitude` and `importance` are the ranges of log₁₀; `kept` and `pruned` count weights in bins of equal
    width in log, as many to either side, importance slowest, both ascending. What lies outside is counted at
    the edge; weights that are zero, or worth nothing, are left out.
    """

    magnitude: tuple[float, float]
    importance: tuple[float, float]
    kept: Counts
    pruned: Counts


class LayerRow(Record):
    """One prunable layer: `kept` is the fraction of its weights left, `importance` its share of all saliency.

    `importance` is None where the layer was not scored, `histogram` where all its weights were zero.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    kept: float
    importance: float | None = None
    histogram: Histogram | None = None


class UnitRow(Record):
    """A family of units: how many there were, how many were kept, and which layers make and read them."""

    name: str
    units: int
    kept: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]


class StageRow(Record):
    """One stage of a schedule: the ratio asked for, and the metric after pruning and after fine-tuning.

    `layers` are the fractions of their weights that the layers have left, in the order of the report's.
    """

    ratio: float | None
    kept_ratio: float
    layers: tuple[float, ...] = ()
    pruned: float | None
    tuned: float | None
    seconds: float


class CurvePoint(Record):
    """One compression on a curve of accuracy against size: what was asked for, and what it gave.

    `target` is the field of `Options` that was varied ("ratio", "units", "macs"), `value` its value.
    """

    method: str
    target: str
    value: float
    kept_ratio: float
    macs: int | None
    bytes: int
    metric: float
    chosen: bool = False


class Trial(Record):
    """One budget that a search tried: its `value`, what it `reached`, and whether that was good enough.

    A `draft` was pruned with less effort than the result, to find out where to look.
    """

    value: float
    reached: float
    enough: bool
    draft: bool = False


class GoalReport(Record):
    """What a compression had to keep to, and what it `reached`, measured on the result itself.

    `name`, `asked` and `target` are a goal's name, its value and the field of `Options` searched for it; the
    answer is `value`. `interval` is the 95 % interval of a drop, the 10th and 90th percentile of a speed-up;
    None where there is none. `measured` says on what; `trials` are in the order they were made. Where those
    were measured on other samples, `searched` says on which, and `dense` is the dense model's figure there.
    """

    name: str
    asked: float
    reached: float
    interval: tuple[float, float] | None = None
    target: str
    value: float
    measured: str
    trials: tuple[Trial, ...] = ()
    searched: str = ""
    dense: float | None = None


class CompressionReport(Record):
    """Everything worth saying about one compression.

    `params_*` count the elements of all floating-point initializers, `nonzero_after` those that are not zero,
    and `kept_ratio` is nonzero_after / params_before; `macs_*` are multiply-accumulates of one sample (None
    where shapes are unknown) and do not count zeros as savings. `sha256` is the dense model's, `command` the
    command line that did it, None where a program called the library.
    """

    model: str
    sha256: str | None = None
    command: str | None = None
    output: str | None = None
    kept_ratio: float
    params_before: int
    params_after: int
    nonzero_after: int
    macs_before: int | None = None
    macs_after: int | None = None
    bytes_before: int
    bytes_after: int | None = None
    metric: MetricChange | None = None
    goal: GoalReport | None = None
    layers: tuple[LayerRow, ...] = ()
    units: tuple[UnitRow, ...] = ()
    stages: tuple[StageRow, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    saliency_map: SaliencyMap | None = None
    skipped: tuple[Skipped, ...] = ()
    data: str
    loss: str
    opset_before: int
    opset_after: int
    seconds: dict[str, float] = Field(default={})
    memory: MemoryUse | None = None
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default={})
    versions: dict[str, str] = Field(default={})

    @property
    def seconds_total(self) -> float:
        """Wall time of all stages together."""
        return sum(self.seconds.values())


class SweepReport(Record):
    """Accuracy against size: every method at every budget, from one set of statistics.

    `metric` is the figure that the points have, `dense` what the dense model reaches in it; other fields as
    in a compression. `skipped` are budgets that a method cannot meet.
    """

    model: str
    sha256: str | None = None
    command: str | None = None
    metric: str
    dense: float
    params_before: int
    macs_before: int | None = None
    bytes_before: int
    points: tuple[CurvePoint, ...]
    skipped: tuple[Skipped, ...] = ()
    data: str
    measured: str
    seconds: dict[str, float] = Field(default={})
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default={})
    versions: dict[str, str] = Field(default={})
