"""The tie table: op type → function that ties the slots of a node's inputs and outputs.

Every axis of every value has an array of slots, one per index (see `groups`). A rule says of one node which
slots must be cut together, and nothing more:

    t.tie(a, b)          these slots are one and the same index; constants move from `a` to `b`
    t.contract(x, w)     a sum of products runs over these slots; of a constant operand they are the columns
    t.free(a)            any of these may go without touching another value: cropped or padded indices

An axis the rule does not mention is frozen by the driver, and so is every axis if the rule returns a reason:
a rule can be too strict by omission, never wrong by it. Axes are those of ONNX (Conv: N, C, then
space); an axis of symbolic size has no slots and is None.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.units.moving import MOVING
from onnxprune.units.ties import Rule, Slots, Ties, given, integers, is_constant

# Elementwise and normalisations


def _elementwise(t: Ties) -> None:
    for output in t.outputs:
        for operand in t.inputs:
            if operand and output:
                t.tie_all(operand[::-1], output[::-1])  # broadcasting aligns on the right


def _batch_normalization(t: Ties) -> str | None:
    if t.node.attributes.get_int("training_mode", 0):
        return "is in training mode"
    t.tie_all(t.axes(0), t.out)
    for parameter in t.inputs[1:]:
        t.tie((parameter or [None])[0], t.out[1])
    return None


def _instance_normalization(t: Ties) -> None:
    t.tie_all(t.axes(0)[:2], t.out)
    for parameter in t.inputs[1:]:
        t.tie((parameter or [None])[0], t.out[1])


def _all_but(default: int, *, onwards: bool = False) -> Rule:
    """Works across attribute `axis` (and, `onwards`, all axes behind it); leaves the others alone."""

    def rule(t: Ties) -> None:
        rank = len(t.axes(0))
        axis = t.node.attributes.get_int("axis", default) % rank
        for output in t.outputs:
            for k in range(rank):
                if output and len(output) == rank and (k < axis or (k > axis and not onwards)):
                    t.tie(t.axes(0)[k], output[k])

    return rule


def _channelwise(t: Ties) -> str | None:
    if any(value.uses() or value.is_graph_output() for value in t.node.outputs[1:]):
        return "gives indices that count through all channels"
    t.tie_all(t.axes(0)[:2], t.out)
    return None


def _reduce(t: Ties) -> str | None:
    x = t.axes(0)
    if t.node.op_type in ("ArgMax", "ArgMin"):
        axes: Sequence[int] | None = [t.node.attributes.get_int("axis", 0)]
    elif given(t.node, 1):
        axes = integers(t.node, 1)
        if axes is None:
            return "reduces axes that are known at run time only"
    else:
        axes = t.node.attributes.get_ints("axes")
    if not axes:
        axes = [] if t.node.attributes.get_int("noop_with_empty_axes", 0) else range(len(x))
    reduced = {axis % len(x) for axis in axes}
    keep = t.node.attributes.get_int("keepdims", 1)
    kept = [None if k in reduced else slots for k, slots in enumerate(x) if keep or k not in reduced]
    t.tie_all(kept, t.out)
    return None


# Linear layers


def _conv(t: Ties) -> str | None:
    x, w, y = t.axes(0), t.axes(1), t.out
    if x[1] is None or y[1] is None or w[0] is None or w[1] is None:
        return "has a symbolic number of channels"
    groups = t.node.attributes.get_int("group", 1)
    t.tie(x[0], y[0])
    t.tie(w[0], y[1])
    _tie_bias(t, y[1])
    if groups > 1 and len(w[1]) == 1:  # depthwise: each channel makes its own outputs
        t.tie(np.repeat(x[1], len(w[0]) // groups), w[0])
        return None
    _tie_groups(t, w[0], groups)
    _contract_groups(t, x[1], w[1], groups)
    return None


def _conv_transpose(t: Ties) -> str | None:
    x, w, y = t.axes(0), t.axes(1), t.out
    if x[1] is None or y[1] is None or w[0] is None or w[1] is None:
        return "has a symbolic number of channels"
    groups = t.node.attributes.get_int("group", 1)
    t.tie(x[0], y[0])
    _tie_bias(t, y[1])
    if groups == len(x[1]) > 1:
        t.tie(x[1], w[0])
        t.tie(np.repeat(x[1], len(w[1])), y[1])
        return None
    for outputs in y[1].reshape(groups, -1):
        t.tie(w[1], outputs)
    t.contract(x[1], w[0])
    _tie_groups(t, x[1], groups)
    return None


def _tie_bias(t: Ties, outputs: Slots) -> None:
    if t.axes(2):
        t.tie(t.axes(2)[0], outputs)


def _tie_groups(t: Ties, slots: Slots, groups: int) -> None:
    """Every group loses the same index."""
    for row in slots.reshape(groups, -1)[1:]:
        t.tie(slots.reshape(groups, -1)[0], row)


def _contract_groups(t: Ties, x: Slots, w: Slots, groups: int) -> None:
    for inputs in x.reshape(groups, -1):
        t.contract(inputs, w)


def _gemm(t: Ties) -> None:
    a, b = t.axes(0), t.axes(1)
    (rows, a_inner) = a[::-1] if t.node.attributes.get_int("transA", 0) else a
    (b_inner, columns) = b[::-1] if t.node.attributes.get_int("transB", 0) else b
    t.contract(a_inner, b_inner)
    t.tie(rows, t.out[0])
    t.tie(columns, t.out[1])
    t.tie_all(t.axes(2)[::-1], t.out[::-1])


def _matmul(t: Ties) -> None:
    a, b, y = t.axes(0), t.axes(1), list(t.out)
    t.contract(a[-1], b[-2] if len(b) > 1 else b[0])
    if len(b) > 1:
        t.tie(b[-1], y.pop())
    if len(a) > 1:
        t.tie(a[-2], y.pop())
    for operand in (a, b):
        t.tie_all(operand[-3::-1], y[::-1])
    if not any(is_constant(operand) for operand in t.node.inputs):
        for slots in y:
            t.run_parallel(slots)


def _einsum(t: Ties) -> str | None:
    left, arrow, result = t.node.attributes.get_string("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    letters = sorted(set("".join(terms)))
    if not arrow:
        result = "".join(letter for letter in letters if left.count(letter) == 1)
    if any(len(set(term)) < len(term) for term in [*terms, result]):  # an ellipsis, too
        return "takes a diagonal or has an ellipsis"
    if any(is_constant(operand) for operand in t.node.inputs):
        return "multiplies by a constant and is no layer"
    for letter in letters:
        axes = [t.axes(k)[term.index(letter)] for k, term in enumerate(terms) if letter in term]
        if letter in result:
            y = t.out[result.index(letter)]
            t.tie_all(axes, [y] * len(axes))
            if len(axes) > 1:
                t.run_parallel(y)
        elif len(axes) == 2:
            t.contract(*axes)
    return None


# Normalised axes: a cut changes the statistic of what stays, so these rules are asked for by the user only


def _layer_normalization(t: Ties) -> str | None:
    if any(value.uses() or value.is_graph_output() for value in t.node.outputs[1:]):
        return "gives its statistics, too"
    t.tie_all(t.axes(0), t.out)
    for index in (1, 2):
        t.tie_all(t.axes(index)[::-1], t.out[::-1])
    return None


def _group_normalization(t: Ties) -> str | None:
    x, groups = t.axes(0), t.node.attributes.get_int("num_groups", 1)
    if x[1] is None:
        return "has a symbolic number of channels"
    t.tie_all(x[:2], t.out)
    _tie_groups(t, x[1], groups)
    for index in (1, 2):
        t.tie(t.axes(index)[0], x[1])
    return None


def _ops(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh "
    "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
BINARY = "Add Div Max Mean Min Mod Mul Pow PRelu Sub Sum"
LOGIC = "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor"

RULES: dict[str, Rule] = {
    **_ops(f"{UNARY} {BINARY} {LOGIC} Where Identity Dropout", _elementwise),
    **_ops("BatchNormalization", _batch_normalization),
    **_ops("InstanceNormalization", _instance_normalization),
    **_ops("LayerNormalization RMSNormalization", _all_but(-1, onwards=True)),
    **_ops("Softmax LogSoftmax Hardmax LpNormalization", _all_but(-1)),
    **_ops("MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool", _channelwise),
    **_ops("Conv", _conv),
    **_ops("ConvTranspose", _conv_transpose),
    **_ops("Gemm", _gemm),
    **_ops("MatMul", _matmul),
    **_ops("Einsum", _einsum),
    **_ops(
        "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
        "ReduceSumSquare ArgMax ArgMin",
        _reduce,
    ),
    **MOVING,
}

#: In the place of those above where approximate groups are wanted.
APPROXIMATE: dict[str, Rule] = {
    **_ops("LayerNormalization RMSNormalization", _layer_normalization),
    **_ops("GroupNormalization", _group_normalization),
}
