"""Grams of patches: Σ x xᵀ over every position of a layer, by the way that costs least.

`sliding` says what a Conv of stride 1 reads, `pieces` cuts its pixels so that products can be shared,
`correlation` emits those products and puts the gram together, `cost` chooses.
"""

from onnxprune.grams.correlation import Correlation
from onnxprune.grams.cost import Choice, choose
from onnxprune.grams.sliding import Sliding
from onnxprune.grams.square import square, times

__all__ = ["Choice", "Correlation", "Sliding", "choose", "square", "times"]
