"""What can be converted: ops with a function, in a form that it computes; all others are named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir
import torch

from onnxprune.errors import ModelError
from onnxprune.finetune.ops import FUNCTIONS
from onnxprune.finetune.weights import torch_dtype

#: Ops that the converter itself writes out.
STRUCTURE = frozenset(("Constant", "If"))


def refuse_unknown(nodes: Sequence[ir.Node]) -> None:
    """Raise for nodes without a function, all in one sentence.

    Raises:
        ModelError: names each op with one of its nodes.
    """
    found: dict[str, list[str]] = {}
    for node in _inside(nodes):
        problem = _problem(node)
        if problem is not None:
            found.setdefault(problem, []).append(f"'{node.name}'")
    if found:
        listed = [
            f"{op} (node {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
            for op, names in found.items()
        ]
        raise ModelError(
            f"cannot be converted to torch: no function for {', '.join(listed)}; "
            "export it without them, or prune it without fine-tuning"
        )


def _inside(nodes: Sequence[ir.Node]) -> Iterator[ir.Node]:
    """The nodes, and for an If those of its branches."""
    for node in nodes:
        yield node
        if node.op_type == "If":
            for name in ("then_branch", "else_branch"):
                yield from _inside(list(node.attributes[name].as_graph()))


def _problem(node: ir.Node) -> str | None:
    """The op of a node that has no function, with its domain or the form that has none."""
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}.{node.op_type}"
    if node.op_type not in FUNCTIONS and node.op_type not in STRUCTURE:
        return node.op_type
    for value in node.inputs:
        constant = value.const_value if value is not None else None
        if constant is not None and torch_dtype(constant.dtype) is None:
            return f"{node.op_type} of {constant.dtype.name}"
    return next(
        (f"{node.op_type} {form}" for form, is_so in _FORMS.get(node.op_type, ()) if is_so(node)), None
    )


def _trains(node: ir.Node) -> bool:
    if node.op_type != "Dropout":
        return bool(node.attributes.get_int("training_mode", 0))
    flag = node.inputs[2] if len(node.inputs) > 2 else None
    return flag is not None and (flag.const_value is None or bool(flag.const_value.numpy().any()))


def _given(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _target(node: ir.Node) -> torch.dtype | None:
    return torch_dtype(ir.DataType(node.attributes["to"].as_int()))


_UNUSUAL = frozenset(("activations", "activation_alpha", "activation_beta", "clip"))
_Form = tuple[str, Callable[[ir.Node], bool]]
_RECURRENT: tuple[_Form, ...] = (
    ("with sequence lengths", lambda node: _given(node, 4)),
    ("with peepholes", lambda node: _given(node, 7)),
    ("with other activations or a clip", lambda node: bool(_UNUSUAL & set(node.attributes))),
    ("with the batch in front", lambda node: bool(node.attributes.get_int("layout", 0))),
    ("with coupled gates", lambda node: bool(node.attributes.get_int("input_forget", 0))),
)

# Forms of an op without a function.
_FORMS: dict[str, tuple[_Form, ...]] = {
    "BatchNormalization": (("in training mode", _trains),),
    "Cast": (("to a type torch has not", lambda node: _target(node) is None),),
    "Dropout": (("in training mode", _trains),),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
}
