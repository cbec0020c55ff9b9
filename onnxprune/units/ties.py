"""What a rule sees of one node and what it can say: slots that must be cut together.

Every axis of every value has an array of slots, one per index (see `groups`); an axis of symbolic size has
none and is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Slots = npt.NDArray[np.int64]
Axes = list[Slots | None]
Pair = tuple[Slots, Slots]


@dataclass(frozen=True, eq=False)
class Fold:
    """A factor that an axis of the input and an axis of the output have in common (see `reshape.factors`).

    Row i of `before` and of `after`, int64[size, rest] each, has the slots whose index of the factor is i.
    All folds of an axis hold all its slots; at most one of them can be tied.
    """

    before: Slots
    after: Slots

    @property
    def pair(self) -> Pair:
        """All slots of row i before with all of row i after, for every i."""
        count, copies = self.before.shape[1], self.after.shape[1]
        return np.repeat(self.before, copies, axis=1).ravel(), np.tile(self.after, (1, count)).ravel()


@dataclass
class Ties:
    """One node as its rule sees it, and what the rule said. Omitted inputs and outputs have None for axes."""

    node: ir.Node
    inputs: list[Axes | None]
    outputs: list[Axes | None]
    pairs: list[Pair] = field(default_factory=list)
    contractions: list[Pair] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    parallel: list[Slots] = field(default_factory=list)
    freed: list[Slots] = field(default_factory=list)

    def tie(self, a: Slots | None, b: Slots | None) -> bool:
        """Tie equal lengths; anything else (symbolic, broadcast, impossible) stays unmentioned: False."""
        if a is None or b is None or a.shape != b.shape:
            return False
        self.pairs.append((a.ravel(), b.ravel()))
        return True

    def tie_all(self, a: Iterable[Slots | None], b: Iterable[Slots | None]) -> None:
        """Tie axis by axis."""
        for one, other in zip(a, b, strict=False):
            self.tie(one, other)

    def contract(self, x: Slots | None, w: Slots | None) -> None:
        """Tie the summed axis of two operands, and remember it as where values are consumed."""
        if x is not None and w is not None and x.shape == w.shape:
            self.contractions.append((x.ravel(), w.ravel()))

    def run_parallel(self, a: Slots | None) -> None:
        """Remember an axis whose indices are computed apart from each other, by the same sums."""
        if a is not None:
            self.parallel.append(a.ravel())

    def free(self, a: Slots | None) -> None:
        """Mention slots without tying them."""
        if a is not None:
            self.freed.append(a.ravel())

    def axes(self, index: int) -> Axes:
        """Axes of input `index`; empty if it is omitted."""
        return (self.inputs[index] if index < len(self.inputs) else None) or []

    @property
    def out(self) -> Axes:
        """Axes of the first output."""
        return self.outputs[0] or []


Rule = Callable[[Ties], str | None]  # the reason why this node cannot be understood, or None


def is_constant(value: ir.Value | None) -> bool:
    """Whether this is an initializer that nobody can override from outside."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array of a constant, else None."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return value.const_value.numpy()


def integers(node: ir.Node, index: int, name: str = "") -> list[int] | None:
    """An integer parameter: constant input or, in `name`, attribute; None if absent or computed."""
    if index < len(node.inputs) and node.inputs[index] is not None:
        array = constant(node.inputs[index])
        return None if array is None else [int(number) for number in array.ravel()]
    given = node.attributes.get_ints(name) if name else None
    return None if given is None else list(given)


def given(node: ir.Node, index: int) -> bool:
    """Whether input `index` is there."""
    return index < len(node.inputs) and node.inputs[index] is not None
