"""Models side by side, held to limits, fine-tuned, unpacked."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from onnxprune.report.schema.base import MetricChange, Record, Skipped, Spread


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
    versions: dict[str, str] = Field(default={})


class GateCheck(Record):
    """One limit, by its name in `onnxprune.options.Limits`, what was `measured`, and whether that `held`.

    `interval` is the 95 % interval of a figure of merit, or of its drop, that is a share of samples.
    """

    name: str
    limit: float
    measured: float
    held: bool
    interval: tuple[float, float] | None = None


class GatedModel(Record):
    """One model, the bytes of its file and external data, and what it was checked for."""

    model: str
    bytes: int
    checks: tuple[GateCheck, ...]


class GateReport(Record):
    """Finished models held to limits: whether all of them `held`.

    `metric` is the figure that was measured, on `data`, None where no limit asked for one; `reference` is the
    dense model; `command` as in a compression.
    """

    held: bool
    command: str | None = None
    models: tuple[GatedModel, ...]
    reference: str | None = None
    metric: str | None = None
    data: str | None = None
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default={})

    @property
    def failed(self) -> tuple[tuple[GatedModel, GateCheck], ...]:
        """The checks that did not hold, each with its model."""
        return tuple((model, check) for model in self.models for check in model.checks if not check.held)


class Repacking(Record):
    """A file some of whose weights, by name, are stored in another way."""

    model: str
    output: str
    weights: tuple[str, ...]
    bytes_before: int
    bytes_after: int


class UnpackReport(Repacking):
    """A file whose packed weights, by name, were made dense."""


class PackReport(Repacking):
    """A file whose `weights` were packed."""


class EpochRow(Record):
    """One epoch: mean training loss (None before the first), the figure measured after it, if any.

    `returned`: it was worse than the start, as all before it, and the run went back there with a third of the
    learning rate.
    """

    epoch: int
    loss: float | None
    metric: float | None = None
    returned: bool = False


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
    options: dict[str, Any] = Field(default={})
    versions: dict[str, str] = Field(default={})
