"""Budget: what `--ratio` means in whole weights, and which layers it is taken from.

The ratio is the share of *all* float parameters of the normalised model that stay non-zero, biases included,
as in the papers' tables. Biases, norm parameters and left-out layers are never pruned, so what remains for
the prunable weights is the ratio's count less theirs; a ratio below them is refused with the number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.errors import BudgetError, UsageError
from onnxprune.layers import Layer, Skipped
from onnxprune.model import parameters
from onnxprune.options import Options

_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Budget:
    """`weights` of the prunable `layers` stay, of `total` parameters `target` in all.

    `sizes` are the weights of each layer that its units leave it, `least` those it keeps in any case.
    """

    layers: tuple[Layer, ...]
    total: int
    target: int
    weights: int
    sizes: dict[str, int]
    least: dict[str, int]

    def at(self, share: float) -> int:
        """Weights that stay after a geometric share 0…1 of the way from all of them to the budget."""
        start = sum(self.sizes.values())
        return max(self.weights, round(start * (self.weights / start) ** share)) if self.weights else 0


def make_budget(
    model: ir.Model,
    layers: Sequence[Layer],
    options: Options,
    biases_change: bool,
    without_units: ir.Model | None = None,
) -> Budget:
    """The budget of `options.ratio` over `layers`.

    Args:
        model: the normalised dense model.
        layers: those that may be pruned.
        options: the ratio and the floors.
        biases_change: the surgeon writes biases, so that zeros among them may become something else.
        without_units: the model without the units that go, if any do: the ratio refers to `model`, but what
            is left to share it among is less.

    Raises:
        BudgetError: what is never pruned exceeds the ratio already.
    """
    total = sum(tensor.size for tensor in parameters(model).values())
    everything = parameters(without_units or model)
    target = int(options.ratio * total + 1e-9) if options.ratio is not None else total
    weights = {layer.weight.name for layer in layers}
    biases = {layer.bias.name for layer in layers if layer.bias is not None} if biases_change else set()
    fixed = sum(
        tensor.size if name in biases else int(np.count_nonzero(tensor.numpy()))
        for name, tensor in everything.items()
        if name not in weights
    )
    sizes = {layer.name: everything[layer.weight.name or ""].size for layer in layers}
    least = {layer.name: _floor(layer, sizes[layer.name], options) for layer in layers}
    if target < fixed + sum(least.values()):
        floors = f" and {sum(least.values()):,} by --floor" if any(least.values()) else ""
        raise BudgetError(
            f"--ratio {options.ratio:g} keeps {target:,} of {total:,} parameters, but {fixed:,} are biases "
            f"or other parameters that are not pruned{floors}; the smallest possible ratio is "
            f"{np.ceil(1e6 * (fixed + sum(least.values())) / total) / 1e6:g}"
        )
    nonzero = sum(int(np.count_nonzero(everything[name or ""].numpy())) for name in weights)
    return Budget(tuple(layers), total, target, min(target - fixed, nonzero), sizes, least)


def select(
    layers: Sequence[Layer], options: Options, blocked: dict[str, str]
) -> tuple[list[Layer], list[Skipped]]:
    """The layers that may be pruned, and the others with the reason.

    Args:
        layers: all layers.
        options: `exclude` and `floors` hold shell patterns over layer or weight names.
        blocked: reasons by layer name, for scores that need a gradient.

    Raises:
        UsageError: a pattern that names no layer.
    """
    for pattern in (*options.exclude, *options.floors):
        if not any(layer.matches(pattern) for layer in layers):
            raise UsageError(f"no layer or weight is named like {pattern!r}; see `onnxprune inspect`")
    chosen, skipped = [], []
    for layer in layers:
        excluded = next((pattern for pattern in options.exclude if layer.matches(pattern)), None)
        if excluded is not None:
            skipped.append(Skipped(layer.name, f"excluded by --exclude {excluded!r}"))
        elif layer.name in blocked:
            skipped.append(Skipped(layer.name, blocked[layer.name]))
        else:
            chosen.append(layer)
    return chosen, skipped


def require(layers: Sequence[Layer], left_out: Sequence[Skipped]) -> None:
    """Refuse to go on with nothing to prune.

    Raises:
        BudgetError: there are no `layers`; says why, from what was `left_out`, and what may help.
    """
    if layers:
        return
    reasons = Counter(entry.reason for entry in left_out)
    why = "; ".join(f"{reason} ({count} nodes)" for reason, count in reasons.most_common(_REASONS_SHOWN))
    remedy = "`onnxprune inspect` shows what there is"
    if any(reason.startswith("no gradient") for reason in reasons):
        remedy = "--saliency wanda --allocation uniform needs no gradient"
    raise BudgetError(f"no layer is left to prune: {why or 'nothing in it is linear'}; {remedy}")


def _floor(layer: Layer, size: int, options: Options) -> int:
    shares = [share for pattern, share in options.floors.items() if layer.matches(pattern)]
    return int(np.ceil(max(shares, default=0.0) * size))
