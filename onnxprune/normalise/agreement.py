"""Agreement: sizes that onnx's shape inference does not compare, although nothing runs where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from onnxprune.errors import ModelError

Sizes = list[int | None]


class SizesAgree(ir.passes.InPlacePass):
    """Refuses linear nodes whose operands do not fit together, as far as their sizes are known."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Look at every node, those of subgraphs included.

        Raises:
            ModelError: names the node and the sizes.
        """
        for node in model.graph.all_nodes():
            operands = [_sizes(value) for value in node.inputs]
            problems = _PROBLEMS.get(node.op_type) if not node.domain else None
            problem = next(problems(node, operands), None) if problems is not None else None
            if problem is not None:
                found = ", ".join(map(str, operands))
                raise ModelError(
                    f"is not a valid ONNX model: {problem} in {node.op_type} '{node.name}' of {found}; "
                    "export it again"
                )
        return ir.passes.PassResult(model, False)


def _conv(node: ir.Node, operands: list[Sizes | None]) -> Iterator[str]:
    x, weight, *bias = operands
    groups = node.attributes.get_int("group", 1)
    if groups < 1:
        yield f"there cannot be {groups} groups"
    if groups < 1 or weight is None:
        return
    transposed = node.op_type == "ConvTranspose"
    across, within = weight[:2]  # the axis that is cut into groups, and the one that is not
    outputs, inputs = (_times(within, groups), across) if transposed else (across, _times(within, groups))
    if across is not None and across % groups:
        yield f"{across} channels are no {groups} groups"
    if x is not None and _unlike(x[1], inputs):
        yield f"{x[1]} channels meet a weight for {inputs}"
    if bias and bias[0] is not None and (len(bias[0]) != 1 or _unlike(bias[0][0], outputs)):
        yield f"the bias is not one of {outputs} channels"


def _gemm(node: ir.Node, operands: list[Sizes | None]) -> Iterator[str]:
    a, b = operands[:2]
    if a is None or b is None:
        return
    inner = a[0 if node.attributes.get_int("transA", 0) else 1]
    wanted = b[1 if node.attributes.get_int("transB", 0) else 0]
    if _unlike(inner, wanted):
        yield f"{inner} features meet a weight for {wanted}"


_PROBLEMS: dict[str, Callable[[ir.Node, list[Sizes | None]], Iterator[str]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
}


def _times(size: int | None, groups: int) -> int | None:
    return None if size is None else size * groups


def _unlike(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _sizes(value: ir.Value | None) -> Sizes | None:
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else None for size in value.shape]
