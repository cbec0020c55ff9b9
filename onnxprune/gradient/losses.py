"""Losses: how the outputs of a model become a per-example negative log-likelihood, and ∂L/∂output.

The Fisher matrix is an expectation over the model's own distribution, so targets are sampled from it: no
labels are needed. All noise is a graph input, drawn by `LossHead.draw`: a run is the same on every provider.

* cross-entropy: L = −log softmax(z)[label] over the softmax's axis, label = argmax(z + Gumbel noise), one
  observation at every remaining position; ∂L/∂z = softmax(z) − onehot(label).
* Bernoulli, for a Sigmoid under "cross-entropy": bit = [z + logistic noise > 0]; ∂L/∂z = σ(z) − bit.
* gaussian: L = ½‖y − t‖² with t = y + ε, ε standard normal; ∂L/∂y = −ε.

L is the sum over examples; nothing divides by the batch.
"""

# An Emitter returns one value or several, hence Any.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data.storage import require_room
from onnxprune.emit import Emitter
from onnxprune.errors import GradientError, UsageError

Loss = Literal["auto", "cross-entropy", "gaussian"]
NoiseKind = Literal["gumbel", "logistic", "normal"]

# Ops that move or rename the elements of a head's output without changing what they say.
_MOVES = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Dropout"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax"})


class Noise(NamedTuple):
    """A noise input, and the value whose run-time shape it must be fed with."""

    name: str
    kind: NoiseKind
    like: ir.Value


@dataclass
class LossHead:
    """What `attach_loss` recognised and emitted.

    Attributes:
        kind: "cross-entropy" or "gaussian"; "mixed" where some outputs are the one and some the other.
        description: one sentence for a person.
        seeds: ∂L/∂value for the values that L is a direct function of.
        noise: the inputs to feed, see `draw`.
        label: name of the int64 input for true labels, one an observation, in any shape of as many elements.
        loss: L, summed over the batch: a scalar.
    """

    kind: Literal["cross-entropy", "gaussian", "mixed"]
    description: str
    loss: ir.Value
    seeds: dict[ir.Value, ir.Value] = field(default_factory=dict)
    noise: list[Noise] = field(default_factory=list)
    label: str | None = None

    def draw(
        self, rng: np.random.Generator, shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Noise to feed: one array for each noise input, of the shape that `shapes` has under its name.

        Raises:
            DataError: one that memory has no room for.
        """
        feeds = {}
        for name, kind, like in self.noise:
            what = f"noise for '{like.name}' {list(shapes[name])}"
            require_room(8 * prod(shapes[name]), what, "use a smaller --batch-size, or smaller inputs")
            sample = {"gumbel": rng.gumbel, "logistic": rng.logistic, "normal": rng.normal}[kind]
            dtype = like.dtype.numpy() if like.dtype else np.float32
            feeds[name] = sample(size=tuple(shapes[name])).astype(dtype)
        return feeds


@dataclass(frozen=True)
class Head:
    """The distribution behind `output`, a function of `value`; a categorical has its classes along `axis`."""

    value: ir.Value
    family: Literal["categorical", "bernoulli", "gaussian"]
    axis: int
    output: ir.Value


def attach_loss(model: ir.Model, op: Emitter, loss: Loss = "auto", labels: bool = False) -> LossHead:
    """Append the loss of `model` and its seeds to ``model.graph``, through `op`.

    Args:
        model: changed in place: nodes, and inputs for noise and labels.
        op: an emitter on the graph of `model`.
        loss: "auto" takes cross-entropy where an output ends in Softmax or LogSoftmax, or where the only
            float output is 2-D with at least two columns; gaussian for any other output.
        labels: take true labels from an input instead of sampling them.

    Raises:
        GradientError: no output is a float.
        UsageError: cross-entropy, or labels, for a model without an output to take them.
    """
    heads = heads_of(model.graph, loss)
    classifiers = [head for head in heads if head.family == "categorical"]
    if labels and len(classifiers) != 1:
        raise UsageError(
            f"labels: the model has {len(classifiers)} outputs that classify, one is needed; "
            "leave the labels out, they are then sampled from the model"
        )
    parts = _Parts(model.graph, op, labels)
    losses = [_FAMILIES[head.family](parts, head) for head in heads]
    gaussian = {head.family == "gaussian" for head in heads}
    return LossHead(
        kind="mixed" if len(gaussian) == 2 else "gaussian" if True in gaussian else "cross-entropy",
        description=_sentence(heads, _float_outputs(model.graph), parts.label is not None),
        loss=op.Sum(*losses) if len(losses) > 1 else losses[0],
        seeds=parts.seeds,
        noise=parts.noise,
        label=parts.label,
    )


def takes_labels(graph: ir.Graph, loss: Loss = "auto") -> bool:
    """Whether there is one output that classifies whole samples, so that a label a sample says it all."""
    try:
        heads = [head for head in heads_of(graph, loss) if head.family == "categorical"]
    except UsageError:  # no head at all for this loss: attaching it will say so
        return False
    return len(heads) == 1 and heads[0].value.shape is not None and len(heads[0].value.shape) == 2


class _Parts:
    """What the heads of one loss add to: new graph inputs, and the seeds."""

    def __init__(self, graph: ir.Graph, op: Emitter, labelled: bool) -> None:
        self.graph, self.op, self.labelled = graph, op, labelled
        self.seeds: dict[ir.Value, ir.Value] = {}
        self.noise: list[Noise] = []
        self.label: str | None = None

    def add_noise(self, kind: NoiseKind, like: ir.Value) -> ir.Value:
        name = self.op.fresh(f"{kind}_noise")
        value = ir.Value(name=name, shape=like.shape, type=ir.TensorType(like.dtype or ir.DataType.FLOAT))
        self.graph.inputs.append(value)
        self.noise.append(Noise(name, kind, like))
        return value

    def add_label(self, rank: int) -> ir.Value:
        self.label = self.op.fresh("label")
        shape = ir.Shape([ir.SymbolicDim(f"label_{axis}") for axis in range(rank)])
        value = ir.Value(name=self.label, shape=shape, type=ir.TensorType(ir.DataType.INT64))
        self.graph.inputs.append(value)
        return value


def _categorical(parts: _Parts, head: Head) -> ir.Value:
    op, z, axis = parts.op, head.value, head.axis
    if parts.labelled:
        # one number an observation, whatever shape the caller has them in
        label = op.Reshape(parts.add_label(1), op.Shape(op.ArgMax(z, axis=axis, keepdims=1)))
    else:
        label = op.ArgMax(op.Add(z, parts.add_noise("gumbel", z)), axis=axis, keepdims=1)
    zero, one = (op.constant(np.array(number, dtype=np.int64)) for number in (0, 1))
    size = op.Shape(z, start=axis, end=None if axis == -1 else axis + 1)
    classes = op.Reshape(op.Range(zero, op.Squeeze(size), one), op.ints(-1, *[1] * (-axis - 1)))
    onehot = op.Where(op.Equal(classes, label), op.scalar(1.0, z), op.scalar(0.0, z))
    parts.seeds[z] = op.Sub(op.Softmax(z, axis=axis), onehot)
    return op.Neg(op.ReduceSum(op.Mul(op.LogSoftmax(z, axis=axis), onehot), keepdims=0))


def _bernoulli(parts: _Parts, head: Head) -> ir.Value:
    op, z = parts.op, head.value
    one, zero = op.scalar(1.0, z), op.scalar(0.0, z)
    bit = op.Where(op.Greater(op.Add(z, parts.add_noise("logistic", z)), zero), one, zero)
    parts.seeds[z] = op.Sub(op.Sigmoid(z), bit)
    return op.ReduceSum(op.Sub(op.Softplus(z), op.Mul(bit, z)), keepdims=0)


def _gaussian(parts: _Parts, head: Head) -> ir.Value:
    op = parts.op
    noise = parts.add_noise("normal", head.value)
    parts.seeds[head.value] = op.Neg(noise)
    return op.Mul(op.ReduceSumSquare(noise, keepdims=0), op.scalar(0.5, head.value))


_FAMILIES = {"categorical": _categorical, "bernoulli": _bernoulli, "gaussian": _gaussian}


def _float_outputs(graph: ir.Graph) -> list[ir.Value]:
    """The outputs that are floats, each once.

    Raises:
        GradientError: there is none.
    """
    floats = [v for v in dict.fromkeys(graph.outputs) if v.dtype is None or v.dtype.is_floating_point()]
    if not floats:
        names = ", ".join(f"'{value.name}'" for value in graph.outputs)
        raise GradientError(
            f"no output of the model is a float: {names}; prune by magnitude, which needs none"
        )
    return floats


def heads_of(graph: ir.Graph, loss: Loss = "auto") -> list[Head]:
    """The distributions behind the outputs; `attach_loss` says what `loss` means.

    Raises:
        GradientError: no output is a float.
        UsageError: cross-entropy for a model without an output to take it.
    """
    outputs = _float_outputs(graph)
    if loss == "gaussian":
        return [Head(y, "gaussian", 0, y) for y in outputs]
    found = {y: head for y in outputs if (head := _softmax_head(y)) is not None}
    heads = list({head.value: head for head in found.values()}.values())
    logits = {_origin(head.value) for head in heads}
    # logits put out beside their own softmax are the same distribution, not a second one
    rest = [y for y in outputs if y not in found and _origin(y) not in logits]
    if loss == "auto":
        single = len(outputs) == 1 and not heads and _is_logits(outputs[0])
        return heads + [Head(y, "categorical", -1, y) if single else Head(y, "gaussian", 0, y) for y in rest]
    for y in rest:
        producer = _origin(y).producer()
        if producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is not None:
            heads.append(Head(producer.inputs[0], "bernoulli", 0, y))
    if not heads and len(rest) == 1 and rest[0].shape is not None and rest[0].shape.rank() > 1:
        heads = [Head(rest[0], "categorical", -1, rest[0])]
    if not heads:
        names = ", ".join(f"'{y.name}'" for y in rest)
        raise UsageError(
            f"--loss cross-entropy: none of {names} ends in Softmax or Sigmoid; use --loss gaussian"
        )
    return heads


def _origin(value: ir.Value) -> ir.Value:
    """Where `value` was computed, before it was only moved about."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _softmax_head(output: ir.Value) -> Head | None:
    node = _origin(output).producer()
    if node is None or node.op_type not in _SOFTMAX or node.inputs[0] is None:
        return None
    z, axis = node.inputs[0], node.attributes.get_int("axis", -1)
    if axis >= 0:
        if z.shape is None:
            return None  # an axis counted from the front says nothing about a value of unknown rank
        axis -= z.shape.rank()
    return Head(z, "categorical", axis, output)


def _is_logits(output: ir.Value) -> bool:
    producer = _origin(output).producer()
    if (
        output.shape is None
        or output.shape.rank() != 2
        or (producer is not None and producer.op_type == "Sigmoid")
    ):
        return False
    columns = output.shape[1]
    return isinstance(columns, int) and columns >= 2


def _sentence(heads: Sequence[Head], outputs: Sequence[ir.Value], labelled: bool) -> str:
    target = "true labels" if labelled else "labels sampled from the model"
    words = {
        "categorical": f"cross-entropy over axis {{axis}} of '{{value}}', {target}",
        "bernoulli": "Bernoulli cross-entropy on '{value}', bits sampled from the model",
        "gaussian": "unit Gaussian around '{value}'",
    }
    said = []
    for head in heads:
        behind = "" if head.value is head.output else f" (behind output '{head.output.name}')"
        said.append(words[head.family].format(axis=head.axis, value=head.value.name) + behind)
    heard = {head.output for head in heads} | {head.value for head in heads}
    silent = [f"'{y.name}'" for y in outputs if y not in heard]
    return "; ".join(said) + (f"; not in the loss: {', '.join(silent)}" if silent else "")
