"""Totals: what the batches' sums add up to, in float64, and a layer's statistics put together from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.grams import Correlation
from onnxprune.statistics.factors import Factor, Gram, Samples
from onnxprune.statistics.store import LayerStatistics

Array = npt.NDArray[Any]

DECAY = 0.95  # the papers' exponential average


@dataclass
class Totals:
    """Sums of one layer; an output's part before the slash says what it is of (see `graph`).

    A row of features stands for `share` rows. In an exponential average, of so many batches as `averaged`
    says, a batch counts by its mean, and the weight of all is one (MLPrune, §4; Martens & Grosse 2015, §5).
    What a batch counts follows from its number, so that batches may come in any order.
    """

    averaged: int | None
    share: float
    sums: dict[str, Array] = field(default_factory=dict)
    rows: float = 0.0
    _kept: dict[int, tuple[Array, float]] = field(default_factory=dict)  # rows and what their squares count

    def add(self, number: int, outputs: Mapping[str, Array]) -> None:
        """Add what batch `number` made, or, of sums that wait, what several made."""
        count = float(outputs["count"].reshape(-1)[0]) if "count" in outputs else 0.0
        part = 1.0 if self.averaged is None else _weight(number, self.averaged) / count
        for name in ("sum", "gram", "products", "gradient"):
            if name in outputs:
                self._accumulate(name, outputs[name], part * (self.share if name in ("sum", "gram") else 1))
        if "rows" in outputs:
            self._kept[number] = outputs["rows"], part * self.share
        self.rows += count

    def merge(self, other: Totals) -> None:
        """Add what another has of other batches."""
        for name, values in other.sums.items():
            self._accumulate(name, values, 1.0)
        self._kept |= other._kept
        self.rows += other.rows

    def _accumulate(self, name: str, values: Array, part: float) -> None:
        total = self.sums.get(name)
        if total is None:
            total = self.sums[name] = values.astype(np.float64)
            total *= part
            return
        np.add(total, values if part == 1.0 else values * np.float64(part), out=total)

    def statistics(self, samples: int, correlation: Correlation | None) -> LayerStatistics:
        """A and G; `correlation` puts A together from its products."""
        weight = self.rows if self.averaged is None else 1.0
        activations: Factor
        if self._kept:
            activations = Samples(np.concatenate(list(self._scaled()), axis=1), weight)
        else:
            gram = correlation.gram(self.sums["products"]) if correlation else self.sums["gram"]
            activations = Gram(_with_bias(gram, self.sums["sum"], weight), weight)
        gradient = self.sums.get("gradient")
        gradients = None if gradient is None else Gram(gradient, weight)
        return LayerStatistics(activations, gradients, self.rows, float(samples))

    def _scaled(self) -> Iterator[Array]:
        """The rows with the 1 of ā behind, times the root of what their squares count."""
        for _, (features, counts) in sorted(self._kept.items()):
            rows = features.transpose(0, 2, 1)
            ones = np.ones((*rows.shape[:2], 1), dtype=rows.dtype)
            yield np.concatenate([rows, ones], axis=2) * np.sqrt(counts).astype(rows.dtype)


def _weight(number: int, batches: int) -> float:
    """Of batch `number` in an exponential average that began with the first."""
    return float(DECAY ** (batches - 1 - number)) * ((1 - DECAY) if number else 1.0)


def _with_bias(gram: Array, total: Array, rows: float) -> Array:
    """The gram of [a; 1] from the gram of a, its sum and the number of rows."""
    groups, size, _ = gram.shape
    full = np.empty((groups, size + 1, size + 1), dtype=np.float64)
    full[:, :size, :size] = gram
    full[:, :size, size] = full[:, size, :size] = total
    full[:, size, size] = rows
    return full
