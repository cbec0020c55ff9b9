"""Statistics of a whole model: what is known of each layer, and their file (safetensors).

Everything is a sum with the number of rows it was taken over, so files of shards and machines merge by
adding. The file carries the model's hash; statistics of another model are refused.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from onnxprune.errors import StatisticsError
from onnxprune.files import replacing
from onnxprune.layers import Layer
from onnxprune.statistics.factors import Factor, Gram, Samples

Array = npt.NDArray[Any]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FORMAT = "onnxprune-statistics-1"
_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class LayerStatistics:
    """A and G of one layer.

    `activations` is the factor of ā = [a; 1], `gradients` that of ∂L/∂s (None where no gradient reaches),
    `rows` how many rows were seen and `samples` from how many samples, so that T = rows / samples.
    """

    activations: Factor
    gradients: Gram | None
    rows: float
    samples: float

    @property
    def positions(self) -> float:
        """T, positions per sample."""
        return self.rows / self.samples

    def mean(self) -> Array:
        """Mean of a, [groups, d_in]: A's last column."""
        if isinstance(self.activations, Samples):
            rows = self.activations.rows  # the last column is the 1 of ā, scaled as its row is in an average
            total: Array = np.einsum("gnd,gn->gd", rows[:, :, :-1], rows[:, :, -1], dtype=np.float64)
        else:
            total = self.activations.total[:, :-1, -1]
        mean: Array = total / self.activations.weight
        return mean

    def centred(self, mean: Array) -> Factor:
        """The factor of a − `mean` [groups, d_in], `mean` being that of a; with zeros that of a as it is."""
        factor = self.activations
        if isinstance(
            factor, Samples
        ):  # a row's last entry is the 1 of ā, scaled as the row is in an average
            return Samples(factor.rows[:, :, :-1] - factor.rows[:, :, -1:] * mean[:, None, :], factor.weight)
        total = (-factor.weight * mean)[:, :, None] * mean[:, None, :]
        total += factor.total[:, :-1, :-1]
        return Gram(total, factor.weight)

    def merge(self, other: LayerStatistics, decay: float = 1.0, share: float = 1.0) -> LayerStatistics:
        """Sum of decay · self and share · other; rows and samples are counted, not averaged.

        Raises:
            StatisticsError: one has gradients and the other has none, or sizes differ.
        """
        if self.activations.size != other.activations.size or (self.gradients is None) != (
            other.gradients is None
        ):
            raise StatisticsError("layer statistics of different form cannot be merged")
        gradients = None
        if self.gradients is not None and other.gradients is not None:
            gradients = self.gradients.merge(other.gradients, decay, share)
        mine, theirs = self.activations, other.activations
        activations: Factor
        if isinstance(mine, Samples) and isinstance(theirs, Samples):
            activations = mine.merge(theirs, decay, share)
        else:  # a short shard or batch kept its rows where the others had enough of them for a gram
            activations = _summed(mine).merge(_summed(theirs), decay, share)
        return LayerStatistics(activations, gradients, self.rows + other.rows, self.samples + other.samples)

    def scaled(self) -> LayerStatistics:
        """The same with weight 1: a batch mean, as an exponential average takes it."""
        share = 1.0 / self.activations.weight
        empty = 0.0
        activations = (
            self.activations.merge(self.activations, share, empty)
            if isinstance(self.activations, Gram)
            else Samples(self.activations.rows * np.float32(np.sqrt(share)), 1.0)
        )
        gradients = None if self.gradients is None else self.gradients.merge(self.gradients, share, empty)
        return LayerStatistics(activations, gradients, self.rows, self.samples)

    def fits(self, layer: Layer) -> bool:
        """Whether the factors have the groups and widths of `layer`."""
        wanted = (layer.groups, layer.d_in + 1), (layer.groups, layer.d_out)
        factors = (self.activations, self.gradients)
        return all(
            factor is None or (len(_array(factor)), factor.size) == size
            for factor, size in zip(factors, wanted, strict=True)
        )

    def finite(self) -> bool:
        """Whether every sum is a number, and every mean square one in float32, in which they are used."""
        sums = [self.activations] + ([self.gradients] if self.gradients else [])
        return all(_largest_square(factor) <= _LARGEST for factor in sums)  # so that NaN fails


@dataclass(frozen=True)
class Plan:
    """How statistics are gathered inside `limit` bytes; `predicted` is the peak of resident memory.

    `run`: samples at once. `parts`: names of the layers of each pass. `spilled`: whether factors are kept in
    files.
    """

    limit: int
    predicted: int
    run: int
    parts: tuple[tuple[str, ...], ...]
    spilled: bool


@dataclass
class Statistics:
    """Statistics of all layers of the model with hash `sha256`; `blocked` says which have no G, and why.

    `positions` is at how many of a sample's A was taken at most; all if None. `plan` says how they were
    gathered inside a limit of memory, if they were; a file does not have it.
    """

    sha256: str
    samples: int
    loss: str
    average: str
    seed: int
    positions: int | None = None
    blocked: dict[str, str] = field(default_factory=dict)
    layers: MutableMapping[str, LayerStatistics] = field(default_factory=dict)
    plan: Plan | None = None

    def require(self, sha256: str) -> None:
        """Refuse to be used for another model.

        Raises:
            StatisticsError: the hashes differ.
        """
        if sha256 != self.sha256:
            raise StatisticsError(
                f"these statistics are of another model (sha256 {self.sha256[:12]}…, "
                f"this one is {sha256[:12]}…); run `onnxprune calibrate` for this model"
            )


def merge(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of all the parts' samples together: sums add.

    Raises:
        StatisticsError: different models, losses, averages or numbers of positions, or an exponential average
            (it has an order).
    """
    first, *rest = parts
    total = Statistics(
        first.sha256,
        first.samples,
        first.loss,
        first.average,
        first.seed,
        first.positions,
        dict(first.blocked),
        dict(first.layers),
    )
    for part in rest:
        total.require(part.sha256)
        if first.average == "exponential" or (part.loss, part.average) != (first.loss, first.average):
            raise StatisticsError(
                "only plain means of one and the same loss can be merged; "
                f"these are {first.average} of {first.loss!r} and {part.average} of {part.loss!r}"
            )
        if part.positions != first.positions:
            raise StatisticsError(
                f"statistics of {_words(first.positions)} and of {_words(part.positions)} of a sample "
                "cannot be merged; run `onnxprune calibrate` for all shards with the same --positions"
            )
        if set(part.layers) != set(total.layers):
            raise StatisticsError("the statistics to merge have different layers")
        for name, layer in part.layers.items():
            total.layers[name] = total.layers[name].merge(layer)
        total.samples += part.samples
    return total


class _Header(BaseModel):
    """What a file says of all its layers; the fields of `Statistics`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    sha256: str
    samples: Annotated[int, Field(ge=1)]
    loss: str
    average: Literal["mean", "exponential"]
    seed: int
    positions: Annotated[int, Field(ge=1)] | None = None
    blocked: dict[str, str] = {}


class _Entry(BaseModel):
    """What a file says of one layer beside its sums."""

    model_config = ConfigDict(extra="forbid")

    form: Literal["samples", "gram"]
    weight: _Positive
    rows: _Positive
    samples: _Positive


_ENTRIES = TypeAdapter(dict[str, _Entry])


def save(statistics: Statistics, path: Path) -> None:
    """Write them, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, Array] = {}
    layers: dict[str, dict[str, Any]] = {}
    for index, (name, layer) in enumerate(statistics.layers.items()):
        tensors[f"{index}.A"] = np.ascontiguousarray(_array(layer.activations))
        if layer.gradients is not None:
            tensors[f"{index}.G"] = layer.gradients.total
        layers[name] = {
            "form": "samples" if isinstance(layer.activations, Samples) else "gram",
            "weight": layer.activations.weight,
            "rows": layer.rows,
            "samples": layer.samples,
        }
    header = {key: getattr(statistics, key) for key in _Header.model_fields}
    meta = {"format": FORMAT, "statistics": json.dumps(header), "layers": json.dumps(layers)}
    with replacing(path, "the statistics") as partial:
        safetensors.numpy.save_file(tensors, partial, metadata=meta)
        _order(partial)


def _order(path: Path) -> None:
    """Sort what is said beside the tensors, in place: safetensors has it in another order at every run."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def load(path: Path) -> Statistics:
    """Read a file that `save` wrote.

    Raises:
        StatisticsError: not such a file, cut off, or with NaN or Inf in it; names the file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            if meta.get("format") != FORMAT:
                raise StatisticsError(
                    f"{path} holds no onnxprune statistics; make them with `onnxprune calibrate`"
                )
            statistics = Statistics(**_Header.model_validate_json(meta["statistics"]).model_dump())
            for index, (name, entry) in enumerate(_ENTRIES.validate_json(meta["layers"]).items()):
                statistics.layers[name] = _read(file, index, entry)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        message = f"cannot read statistics from {path}: {reason}; make them again with `onnxprune calibrate`"
        raise StatisticsError(message) from error
    broken = [name for name, layer in statistics.layers.items() if not layer.finite()]
    if broken:
        raise StatisticsError(
            f"{path}: layer {broken[0]!r} has NaN or Inf in its statistics; gather them again"
        )
    return statistics


def _read(file: Any, index: int, entry: _Entry) -> LayerStatistics:
    weight = entry.weight
    array = _factor(file, f"{index}.A", square=entry.form == "gram")
    activations: Factor = Samples(array, weight) if entry.form == "samples" else Gram(array, weight)
    gradients = f"{index}.G" in file.keys()
    return LayerStatistics(
        activations,
        Gram(_factor(file, f"{index}.G", square=True), weight) if gradients else None,
        entry.rows,
        entry.samples,
    )


def _factor(file: Any, name: str, square: bool) -> Array:
    array: Array = file.get_tensor(name)
    if (
        array.ndim != 3
        or array.dtype not in (np.float32, np.float64)
        or (square and len({*array.shape[1:]}) > 1)
    ):
        raise ValueError(f"'{name}' is {array.dtype} {list(array.shape)}")
    return array


def _words(positions: int | None) -> str:
    return "all positions" if positions is None else f"at most {positions} positions"


def _summed(factor: Factor) -> Gram:
    return factor if isinstance(factor, Gram) else Gram(factor.mean() * factor.weight, factor.weight)


def _largest_square(factor: Factor) -> float:
    """The largest mean product, or of rows the largest square; NaN where one is."""
    most = float(np.abs(_array(factor)).max(initial=0))
    return most * most if isinstance(factor, Samples) else most / factor.weight


def _array(factor: Factor) -> Array:
    return factor.rows if isinstance(factor, Samples) else factor.total
