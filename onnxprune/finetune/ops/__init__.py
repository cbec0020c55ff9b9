"""The torch function of every op: a table from op type to the function that computes a node.

A function takes the node's inputs in order (None for one left out) and its attributes as keywords of their
ONNX names, and returns the node's output. It may assume the normalised model: default domain, opset 18 or
newer, constants as initializers. What the graph itself has to add:

* `VECTORS` and `NUMBERS`: inputs that say a shape, axes, a bound … come as a list or a plain number where
  they are constants, so that nothing is read back from the device, and as tensors where they are computed;
* `SEVERAL`: ops with several outputs take their number as `outputs` and return a list of as many;
* `LIKE`: ops that make tensors of their own take a weight as `like`, for device and dtype. Attributes that
  name a dtype become `dtype`, None for the one in which the module computes: after ``module.double()`` a Cast
  to float32 must be one to float64.

Read in this order: common, elementwise, shape, indexing, reduction, normalisation, window, linear, pooling,
resize, recurrent, random.
"""

from __future__ import annotations

from onnxprune.finetune.ops.common import Function
from onnxprune.finetune.ops.elementwise import ELEMENTWISE
from onnxprune.finetune.ops.indexing import INDEXING
from onnxprune.finetune.ops.linear import LINEAR
from onnxprune.finetune.ops.normalisation import NORMALISATION
from onnxprune.finetune.ops.pooling import POOLING
from onnxprune.finetune.ops.random import RANDOM
from onnxprune.finetune.ops.recurrent import RECURRENT
from onnxprune.finetune.ops.reduction import REDUCE, REDUCTION
from onnxprune.finetune.ops.resize import RESIZE
from onnxprune.finetune.ops.shape import SHAPE

__all__ = ["FUNCTIONS", "LIKE", "NUMBERS", "SEVERAL", "VECTORS", "Function"]

FUNCTIONS: dict[str, Function] = {
    **ELEMENTWISE,
    **SHAPE,
    **INDEXING,
    **REDUCTION,
    **NORMALISATION,
    **LINEAR,
    **POOLING,
    **RESIZE,
    **RANDOM,
    **RECURRENT,
}

# By op, the inputs that are lists where they are constants.
VECTORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*REDUCE, "CumSum", "Expand", "OneHot", "Reshape", "Split", "Squeeze", "Tile"), (1,)),
    **dict.fromkeys(("TopK", "Trilu", "Unsqueeze"), (1,)),
    "ConstantOfShape": (0,),
    "Pad": (1, 3),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}

# By op, the inputs that are numbers where they are constants of one element.
NUMBERS: dict[str, tuple[int, ...]] = {"Clip": (1, 2), "Dropout": (1,), "Pad": (2,), "Pow": (1,)}

SEVERAL: frozenset[str] = frozenset("Dropout GRU LSTM LayerNormalization MaxPool RNN Split TopK".split())

LIKE: frozenset[str] = frozenset("Cast ConstantOfShape RandomNormal RandomUniform".split())
