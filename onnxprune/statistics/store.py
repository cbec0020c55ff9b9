"""Statistics of a whole model: what is known of each layer, and of which model.

Everything is a sum with the number of rows it was taken over, so what shards and machines gathered merges by
adding. Statistics carry the model's hash; those of another model are refused.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import StatisticsError
from onnxprune.layers import Layer
from onnxprune.statistics.factors import Factor, Gram, Samples

Array = npt.NDArray[Any]

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
            factor is None or (len(factor.array), factor.size) == size
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


def _words(positions: int | None) -> str:
    return "all positions" if positions is None else f"at most {positions} positions"


def _summed(factor: Factor) -> Gram:
    return factor if isinstance(factor, Gram) else Gram(factor.mean() * factor.weight, factor.weight)


def _largest_square(factor: Factor) -> float:
    """The largest mean product, or of rows the largest square; NaN where one is."""
    most = float(np.abs(factor.array).max(initial=0))
    return most * most if isinstance(factor, Samples) else most / factor.weight
