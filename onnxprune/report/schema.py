"""The record of one compression: what the library returns, the console prints and `--json` writes.

Counts are exact integers, ratios are fractions in 0..1, times are seconds. `model_dump_json(indent=2)` is the
file format, `CompressionReport.model_validate_json(text)` reads it back. Long rows of numbers (`Counts`,
`Costs`) are one text there, with spaces between, so that the file stays readable.
"""

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
    """One stage of a schedule: the ratio asked for, and the metric after pruning and after fine-tuning."""

    ratio: float | None
    kept_ratio: float
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
    """One budget that a search tried: its `value`, what it `reached`, and whether that was good enough."""

    value: float
    reached: float
    enough: bool


class GoalReport(Record):
    """What a compression had to keep to, and what it `reached`, measured on the result itself.

    `name`, `asked` and `target` are a goal's name, its value and the field of `Options` searched for it; the
    answer is `value`. `interval` is the 95 % interval of a drop, the 10th and 90th percentile of a speed-up;
    None where there is none. `measured` says on what; `trials` are in the order they were made.
    """

    name: str
    asked: float
    reached: float
    interval: tuple[float, float] | None = None
    target: str
    value: float
    measured: str
    trials: tuple[Trial, ...] = ()


class Skipped(Record):
    """A node left as it was, and why."""

    name: str
    reason: str


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
    seconds: dict[str, float] = {}
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}

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
    seconds: dict[str, float] = {}
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}


class CalibratedLayer(Record):
    """Statistics of one layer: T `positions` a sample; why no gradient reaches it, None where one does."""

    name: str
    positions: float
    blocked: str | None = None


class Calibration(Record):
    """What `calibrate` gathered and where it lies; `positions` of each sample at most, all if None."""

    model: str
    output: str
    samples: int
    positions: int | None
    loss: str
    average: str
    seed: int
    layers: tuple[CalibratedLayer, ...]


class InspectedLayer(Record):
    """One prunable layer as it is: `density` is the fraction of its `weights` that are not zero.

    With statistics, `importance` is its share of all saliency, and `loss_per_weight` what removing a weight
    alone adds to the loss, on average; None where no gradient reaches it.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    groups: int
    weights: int
    density: float
    macs: int | None
    importance: float | None = None
    loss_per_weight: float | None = None


class InspectedUnits(Record):
    """A family of units: what one of them is worth in parameters and MACs a sample (None where unknown).

    A unit's MACs are those of the whole network with all other units there. With statistics, `costs` is what
    removing each unit alone adds to the loss, the others taking over what they can, in the units' own order;
    None where no gradient reaches them.
    """

    name: str
    units: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    parameters: int
    macs: int | None
    costs: Costs | None = None


class Inspection(Record):
    """What is in a model: what could be pruned, what could not and why, what was normalised on loading.

    `statistics` says what sensitivities rest on, None where there are none; `command` as in a compression.
    """

    model: str
    sha256: str | None = None
    command: str | None = None
    statistics: str | None = None
    bytes: int
    parameters: int
    opset_before: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[InspectedLayer, ...]
    units: tuple[InspectedUnits, ...]
    frozen: tuple[Skipped, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[Skipped, ...]
    versions: dict[str, str] = {}


class Spread(Record):
    """Median of repeated measurements, between their 10th and 90th percentile."""

    p10: float
    median: float
    p90: float


class Latency(Record):
    """Seconds of one call on `batch` samples; `speedup` is None for the reference itself.

    A speed-up is the reference's seconds over the model's in the same round: what slows the machine down for
    a while slows both, and cancels.
    """

    batch: int
    seconds: Spread
    speedup: Spread | None = None


class BenchedModel(Record):
    """One model: its file with external data, MACs of one sample (None where unknown), what it takes to run.

    `load_seconds` and `peak_bytes` (of main memory, beyond the runtime's own) are of a process of its own.
    """

    model: str
    bytes: int
    macs: int | None
    load_seconds: float
    peak_bytes: int
    latency: tuple[Latency, ...]


class BenchReport(Record):
    """Models measured side by side, the first being the reference."""

    models: tuple[BenchedModel, ...]
    data: str
    runs: int
    threads: int
    provider: str
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}


class UnpackReport(Record):
    """A file whose packed weights, by name, were made dense."""

    model: str
    output: str
    weights: tuple[str, ...]
    bytes_before: int
    bytes_after: int


class EpochRow(Record):
    """One epoch: mean training loss (None before the first), the figure measured after it, if any."""

    epoch: int
    loss: float | None
    metric: float | None = None


class FinetuneReport(Record):
    """Everything worth saying about one fine-tuning.

    `best` is the epoch whose weights were kept, 0 being the start, None where nothing was measured; `trained`
    counts parameters, pruned ones included, `nonzero` those of the result that are not zero. `command` as in
    a compression.
    """

    model: str
    sha256: str | None = None
    command: str | None = None
    teacher: str | None = None
    output: str | None = None
    objective: str
    epochs: tuple[EpochRow, ...]
    best: int | None = None
    metric: MetricChange | None = None
    trained: int
    nonzero: int
    bytes_before: int
    bytes_after: int | None = None
    skipped: tuple[Skipped, ...] = ()
    data: str
    device: str
    seconds: float
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}
