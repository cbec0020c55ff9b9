"""What is in a model, and what was gathered about it."""

from __future__ import annotations

from pydantic import Field

from onnxprune.report.schema.base import Costs, MemoryUse, Record, Skipped


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
    memory: MemoryUse | None = None
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
    versions: dict[str, str] = Field(default={})
