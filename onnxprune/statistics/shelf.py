"""A shelf: statistics of layers kept in files, each in memory only while it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from onnxprune.memory import release
from onnxprune.spilling import Folder, Spilled
from onnxprune.statistics.factors import Gram, Samples
from onnxprune.statistics.store import LayerStatistics

_MOST = 2**28  # bytes of factors that stay in memory


@dataclass(frozen=True)
class _Kept:
    """One layer's factors in files, and what is known of them."""

    activations: Spilled
    gradients: Spilled | None
    sampled: bool
    weights: tuple[float, float]  # of A and of G
    rows: float
    samples: float


class Shelf(MutableMapping[str, LayerStatistics]):
    """Layers' statistics by name, in the order they came; what is taken from it is mapped, and read-only."""

    def __init__(self) -> None:
        """Nothing on it; its files go with it, at the latest at exit."""
        self._folder = Folder("statistics")
        self._kept: dict[str, _Kept] = {}

    def __getitem__(self, name: str) -> LayerStatistics:
        """A layer's statistics, mapped anew."""
        kept = self._kept[name]
        array = kept.activations.array()
        inputs, outputs = kept.weights
        return LayerStatistics(
            Samples(array, inputs) if kept.sampled else Gram(array, inputs),
            None if kept.gradients is None else Gram(kept.gradients.array(), outputs),
            kept.rows,
            kept.samples,
        )

    def __setitem__(self, name: str, layer: LayerStatistics) -> None:
        """Write a layer's factors.

        Raises:
            OutputError: there is no room for them.
        """
        factor, gradients = layer.activations, layer.gradients
        made = _Kept(
            self._folder.put(factor.array),
            None if gradients is None else self._folder.put(gradients.total),
            isinstance(factor, Samples),
            (factor.weight, 0.0 if gradients is None else gradients.weight),
            layer.rows,
            layer.samples,
        )
        if name in self._kept:
            del self[name]
        self._kept[name] = made

    def __delitem__(self, name: str) -> None:
        """Forget a layer, and remove its files."""
        kept = self._kept.pop(name)
        for spilled in (kept.activations, kept.gradients):
            if spilled is not None:
                spilled.drop()

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._kept)

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self._kept)


def shelved(layers: MutableMapping[str, LayerStatistics]) -> MutableMapping[str, LayerStatistics]:
    """`layers`, or, where they take much memory, a shelf with what was in them: they are empty then.

    Raises:
        OutputError: there is no room for the files.
    """
    if isinstance(layers, Shelf) or sum(map(_bytes, layers.values())) <= _MOST:
        return layers
    shelf = Shelf()
    for name in list(layers):
        shelf[name] = layers.pop(name)
    release()
    return shelf


def _bytes(layer: LayerStatistics) -> int:
    gradients = layer.gradients
    return layer.activations.array.nbytes + (0 if gradients is None else gradients.array.nbytes)
