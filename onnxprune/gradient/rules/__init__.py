"""The gradient of every op: a table from op type to the rule that emits it.

A rule ``(op, node, gradients of the outputs) -> gradients of the inputs`` emits ONNX nodes of opset 18 that
run with symbolic sizes, in the dtype of the values. It may assume

* the normalised model: default domain, opset 18 or newer, no Constant nodes, constants as initializers;
* that a gradient it is given has exactly the shape and dtype of its output, None standing for zero, and that
  one at least is there;
* that what is emitted and not used is removed: a rule gives the gradient of every input, wanted or not.

It returns one entry an input (and may go on for inputs left out), of the input's shape and dtype; `Wide`
where the input was broadcast, which the driver sums back; None for an input that carries no gradient by
definition (indices, shapes, conditions, the scales of a Resize). A form without a rule raises `NoRule`, which
blocks the node's inputs. An op that is neither in `VJP` nor in `NO_GRADIENT` is unsupported.

Read in this order: common, elementwise, shape, reduction, normalisation, window, linear, pooling, einsum,
resize.
"""

from __future__ import annotations

from onnxprune.gradient.rules.common import Gradient, NoRule, Rule, Wide
from onnxprune.gradient.rules.einsum import EINSUM
from onnxprune.gradient.rules.elementwise import ELEMENTWISE
from onnxprune.gradient.rules.linear import LINEAR
from onnxprune.gradient.rules.normalisation import NORMALISATION
from onnxprune.gradient.rules.pooling import POOLING
from onnxprune.gradient.rules.reduction import REDUCTION
from onnxprune.gradient.rules.resize import RESIZE
from onnxprune.gradient.rules.shape import SHAPE

__all__ = ["NO_GRADIENT", "VJP", "Gradient", "NoRule", "Rule", "Wide"]

VJP: dict[str, Rule] = {
    **ELEMENTWISE,
    **SHAPE,
    **REDUCTION,
    **NORMALISATION,
    **LINEAR,
    **POOLING,
    **EINSUM,
    **RESIZE,
}

# Piecewise constant, or not a function of its inputs' values: a path through one of these adds nothing.
NO_GRADIENT: frozenset[str] = frozenset(
    """
    And ArgMax ArgMin Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Constant
    ConstantOfShape Equal EyeLike Floor Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual
    Multinomial NonMaxSuppression NonZero Not OneHot Or RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Round Shape Sign Size Xor
    """.split()
)
