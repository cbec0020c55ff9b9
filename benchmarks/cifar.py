"""CIFAR-10: pretrained networks without fine-tuning, by every recipe, beside their rivals.

One row: `python -m benchmarks.cifar --only resnet20_cifar10 --ratio 0.25`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.accuracy import COLUMNS, compressed, edited, stated
from benchmarks.common import Case, Row, Table, run
from onnxprune.options import RECIPES

TABLE = Table(
    "cifar",
    "CIFAR-10 networks, no fine-tuning",
    "Calibrated on 1,000 lossless training images without labels, measured on the 509 lossless test "
    "images (one image is 0.2 points). The bar, for the default recipe: points of accuracy below the "
    "dense model. The recipe `magnitude` works on the graph with BatchNormalization folded in, as every "
    "recipe of ours; `magnitude, BN kept` prunes the weights of Conv and Gemm before folding (there is no "
    "such file of ResNet-56). `stated:` rows were measured by others, on other test images.",
    COLUMNS,
)

_BN_KEPT = "magnitude, BN kept"
_BN_FILES = {"resnet20_cifar10": "resnet20_cifar10_bn"}

# Most points of accuracy that may be lost; None: no bar, the figure is reported.
_BARS = {
    ("resnet20_cifar10", 0.25): 2.0,
    ("resnet20_cifar10", 0.125): None,
    ("resnet56_cifar10", 0.25): 0.5,
    ("resnet56_cifar10", 0.125): 2.0,
    ("vgglike_cifar10", 0.25): None,
}

_STATED = {
    ("resnet20_cifar10", 0.25, "stated: magnitude, BN kept"): (61.0, "rivals' best"),
    ("resnet20_cifar10", 0.25, "stated: SparseGPT of onnxsim"): (59.9, "onnxsim 0.8.1"),
    ("resnet56_cifar10", 0.25, "stated: magnitude, BN kept"): (62.5, "rivals' best"),
}


def _recipes(model: str, ratio: float) -> list[str]:
    own = [*RECIPES, *([_BN_KEPT] if model in _BN_FILES else [])]
    return own + [recipe for name, share, recipe in _STATED if (name, share) == (model, ratio)]


CASES = [
    Case(model, ratio, recipe, bar if recipe == "default" else None)
    for (model, ratio), bar in _BARS.items()
    for recipe in _recipes(model, ratio)
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """The row of a recipe, of the baseline that keeps BatchNormalization, or of a stated figure."""
    if case.key in _STATED:
        return stated(*_STATED[case.key])
    if case.recipe == _BN_KEPT:
        return edited(case, options, prune_by_magnitude, _BN_FILES[case.model])
    return compressed(case, options)


def prune_by_magnitude(path: Path, ratio: float, output: Path) -> float:
    """Keep the largest weights of all Conv and Gemm nodes of the file as it is; the share of them kept.

    Nothing is folded and nothing repaired: the threshold is one |w| for the whole file.
    """
    model = onnx.load(path)
    names = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in names]
    weights = [numpy_helper.to_array(tensor) for tensor in tensors]
    sizes = np.sort(np.abs(np.concatenate([weight.ravel() for weight in weights])))[::-1]
    least = sizes[max(1, round(ratio * len(sizes))) - 1]
    for tensor, weight in zip(tensors, weights, strict=True):
        kept = np.where(np.abs(weight) >= least, weight, np.zeros_like(weight))
        tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
    onnx.save(model, output)
    return float((sizes >= least).mean())


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
