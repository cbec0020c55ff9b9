"""MNIST: the two LeNets without fine-tuning, by every recipe.

One row: `python -m benchmarks.mnist --only lenet_5 --ratio 0.04`.
"""

from __future__ import annotations

from benchmarks.accuracy import COLUMNS, compressed
from benchmarks.common import Case, Table, run
from onnxprune.options import RECIPES

TABLE = Table(
    "mnist",
    "LeNets on MNIST, no fine-tuning",
    "Calibrated on the 1,000 committed training images, measured on all 10,000 test images. The bar, for "
    "the default recipe: points of test error above the dense model. `kept` counts all parameters, biases "
    "included.",
    COLUMNS,
)

# Most points of test error that may be added.
_BARS = {
    ("lenet_300_100", 0.08): 0.4,
    ("lenet_300_100", 0.04): 1.2,
    ("lenet_5", 0.08): 0.3,
    ("lenet_5", 0.04): 0.8,
}

CASES = [
    Case(model, ratio, recipe, bar if recipe == "default" else None)
    for (model, ratio), bar in _BARS.items()
    for recipe in RECIPES
]

if __name__ == "__main__":
    run(TABLE, CASES, compressed, __doc__)
