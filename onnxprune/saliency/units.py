"""What units are worth: the order in which those of a family leave, and what that costs.

`kfac` is the loss of the Kronecker-factored quadratic at the layers that read a unit, J being its columns
(design §2; block Optimal Brain Surgeon, Hassibi & Stork 1993). What replaces a unit decides:

    zero     ½ T tr(G W_J A_JJ W_Jᵀ)
    mean     ½ T tr(G W_J Σ_JJ W_Jᵀ)            Σ = A − μμᵀ
    linear   ½ T tr(G W_J ([Σ⁻¹]_JJ)⁻¹ W_Jᵀ)    the others take over, and Σ⁻¹ and W follow each removal

Costs of several readers add up; they are comparable across families, and to those of weights. Units that no
layer reads (both factors of q·k are computed) cost what their makers lose, ½ T G_ss E[s²].

The scores of the Mean Replacement paper (Table 1), with a_p the activation of a unit at position p and ā its
mean; E is over samples, and the sum over the layers that read the unit as well:

    norm  L2 norm of the incoming weights        rand  uniform in [0, 1]
    rs    E[Σ_p −a_p ∂L/∂a_p]                    mrs   E[Σ_p (ā − a_p) ∂L/∂a_p]
    abs_rs, abs_mrs                              the mean of the absolute value of the same sums over p
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg

from onnxprune.refit import FEW_ROWS, RIDGE
from onnxprune.statistics import FirstOrder, LayerStatistics, Samples
from onnxprune.units.families import Family, Touch

Array = npt.NDArray[Any]
Replacement = Literal["zero", "mean", "linear"]

_ROUNDS = 64  # in which the units of a family leave, at most: then several at once
_WIDEST = 8192  # columns up to which a dense inverse is worth its d³
_FEW_RIDGE = 0.1  # relative; with few rows the inverse of a covariance is mostly noise


@dataclass(frozen=True)
class Order:
    """Units of a family as places in it, first to leave first, int64[n]; `loss[k]`: what the first k cost."""

    leaving: npt.NDArray[np.int64]
    loss: Array


class _Term(Protocol):
    def costs(self) -> Array:
        """What each unit would cost now, [units]; of those that left, nothing of use."""
        ...

    def leave(self, units: npt.NDArray[np.int64]) -> float:
        """Let `units` leave together, and say what that costs."""
        ...


def removal_order(
    family: Family, statistics: Mapping[str, LayerStatistics], replacement: Replacement
) -> Order:
    """Cheapest first, by the K-FAC cost; of more than 64 units several leave at once.

    Args:
        family: the units.
        statistics: of all layers that make or read them; without a gradient G is the identity.
        replacement: what takes a unit's place.
    """
    terms = _terms(family, statistics, replacement)
    left = np.ones(family.size, dtype=bool)
    leaving: list[npt.NDArray[np.int64]] = []
    loss = [0.0]
    several = -(-family.size // _ROUNDS)
    while left.any():
        costs = np.where(left, sum(term.costs() for term in terms), np.inf)
        next_ones = np.argsort(costs, kind="stable")[: min(several, int(left.sum()))]
        together = sum(term.leave(next_ones) for term in terms)
        shares = np.cumsum(np.maximum(costs[next_ones], 0.0))
        shares = shares / shares[-1] if shares[-1] > 0 else np.arange(1, len(shares) + 1) / len(shares)
        loss.extend((loss[-1] + max(together, 0.0) * shares).tolist())
        left[next_ones] = False
        leaving.append(next_ones)
    return Order(np.concatenate(leaving), np.array(loss))


def costs_alone(family: Family, statistics: Mapping[str, LayerStatistics], replacement: Replacement) -> Array:
    """K-FAC cost of removing each unit while all others stay, [units]; arguments as for `removal_order`."""
    total: Array = np.zeros(family.size)
    for term in _terms(family, statistics, replacement):
        total = total + term.costs()
    return total


def by_score(scores: Array) -> Order:
    """Lowest score first; what is lost is the sum of the scores, counted from the lowest."""
    leaving = np.argsort(scores, kind="stable")
    ranked = scores[leaving] - min(0.0, float(scores.min()))
    return Order(leaving, np.concatenate([[0.0], np.cumsum(ranked)]))


def norm(family: Family) -> Array:
    """L2 norm of the weights that make each unit, [units] (the paper's `norm`)."""
    total = np.zeros(family.size)
    for touch in family.makers:
        rows = touch.layer.read()[0].reshape(-1, touch.layer.d_in)
        total += (rows**2).sum(axis=1)[touch.indices].sum(axis=1)
    scores: Array = np.sqrt(total)
    return scores


def channels(touch: Touch, side: Literal["input", "output"]) -> npt.NDArray[np.int64]:
    """The channels of the layer's input or output that belong to each unit, int64[units, k]."""
    if side == "output":
        return touch.indices
    kernel = touch.layer.kernel
    found: npt.NDArray[np.int64] = touch.indices.reshape(len(touch.indices), -1, kernel)[:, :, 0] // kernel
    return found


def first_order(name: str, known: Iterable[tuple[npt.NDArray[np.int64], FirstOrder]]) -> Array:
    """`rs`, `abs_rs`, `mrs` or `abs_mrs` of each unit, [units].

    Args:
        name: one of the four.
        known: for each place where the units are read, their channels there, int64[units, k], and its sums.
    """
    total: Array = np.zeros(())
    for places, sums in known:
        change = -sums.products[:, places].sum(axis=2)  # [samples, units]
        if name.endswith("mrs"):
            change = change + sums.gradients[:, places].sum(axis=2) * sums.mean[places].mean(axis=1)
        total = total + change
    scores: Array = (np.abs(total) if name.startswith("abs_") else total).mean(axis=0)
    return scores


def _terms(
    family: Family, statistics: Mapping[str, LayerStatistics], replacement: Replacement
) -> list[_Term]:
    touches, kind = (family.readers, replacement) if family.readers else (family.makers, "made")
    return [_term(touch, statistics[touch.layer.name], kind) for touch in touches]


def _term(touch: Touch, known: LayerStatistics, kind: str) -> _Term:
    weights, _ = touch.layer.read()
    if kind == "made":
        return _Made(touch, weights, known)
    columns = touch.indices.reshape(len(touch.indices), touch.layer.groups, -1) % touch.layer.d_in
    wide = touch.layer.d_in > _WIDEST
    if kind == "linear" and not wide:
        return _Repaired(columns, weights, known)
    return _Alone(columns, weights, known, centred=kind != "zero")


def _weighted(weights: Array, known: LayerStatistics, columns: Array) -> Array:
    """T W_Jᵀ G W_J of every unit, [units, groups, k, k]."""
    picked = np.stack([weights[g][:, columns[:, g]] for g in range(len(weights))])  # [g, o, units, k]
    right = picked
    if known.gradients is not None:
        right = np.einsum("gop,gpuk->gouk", known.gradients.mean(), picked, optimize=True)
    return np.asarray(known.positions * np.einsum("gouj,gouk->ugjk", picked, right, optimize=True))


class _Settled:
    """Nothing else takes over, so costs stay as they are."""

    _costs: Array

    def costs(self) -> Array:
        return self._costs

    def leave(self, units: npt.NDArray[np.int64]) -> float:
        return float(self._costs[units].sum())


class _Alone(_Settled):
    """Zero and mean."""

    def __init__(self, columns: Array, weights: Array, known: LayerStatistics, *, centred: bool) -> None:
        mean = known.mean()
        blocks = np.stack([_block(known, g, columns[:, g]) for g in range(len(weights))], axis=1)
        if centred:
            means = np.stack([mean[g][columns[:, g]] for g in range(len(weights))], axis=1)
            blocks = blocks - means[..., :, None] * means[..., None, :]
        self._costs = 0.5 * np.einsum("ugjk,ugjk->u", _weighted(weights, known, columns), blocks)


def _block(known: LayerStatistics, group: int, columns: Array) -> Array:
    """A_JJ of every unit, [units, k, k], without forming A of samples."""
    factor = known.activations
    if isinstance(factor, Samples):
        rows = factor.rows[group].astype(np.float64)
        blocks = np.stack([rows[:, places].T @ rows[:, places] for places in columns])
        return np.asarray(blocks / factor.weight)
    total = factor.total[group] / factor.weight
    return np.asarray(total[columns[:, :, None], columns[:, None, :]])


class _Repaired:
    """Linear: with P = Σ⁻¹ and M = T Wᵀ G W, both follow what leaves, by rank-k updates."""

    def __init__(self, columns: Array, weights: Array, known: LayerStatistics) -> None:
        self._columns = columns
        covariance = known.centred(known.mean()).mean()
        few = known.activations.weight < FEW_ROWS * covariance.shape[1]
        diagonal = np.einsum("gii->gi", covariance)
        ridge = (_FEW_RIDGE if few else RIDGE) * diagonal.mean(axis=1)
        diagonal += np.maximum(ridge, 1e-12)[:, None]
        self._inverse = np.stack([scipy.linalg.inv(matrix, check_finite=False) for matrix in covariance])
        right = weights
        if known.gradients is not None:
            right = known.gradients.mean() @ weights
        self._loss = known.positions * weights.transpose(0, 2, 1) @ right

    def costs(self) -> Array:
        groups = np.arange(len(self._inverse))[None, :, None, None]
        across, down = self._columns[..., :, None], self._columns[..., None, :]
        inverse, loss = self._inverse[groups, across, down], self._loss[groups, across, down]
        gone = np.abs(np.einsum("ugii->ug", inverse)) < 1e-300
        inverse[gone] += np.eye(inverse.shape[-1])
        costs: Array = 0.5 * np.einsum("ugjk,ugkj->u", loss, np.linalg.inv(inverse))
        return costs

    def leave(self, units: npt.NDArray[np.int64]) -> float:
        total = 0.0
        for group in range(len(self._inverse)):
            inverse, loss = self._inverse[group], self._loss[group]
            columns = np.unique(self._columns[units, group])
            block = scipy.linalg.inv(inverse[np.ix_(columns, columns)], check_finite=False)
            total += 0.5 * float(np.vdot(loss[np.ix_(columns, columns)], block.T))
            moved = block @ inverse[columns]  # [k, d]: what the others take over
            inverse -= inverse[:, columns] @ moved
            crossed = loss[:, columns] @ moved
            loss += moved.T @ loss[np.ix_(columns, columns)] @ moved - crossed - crossed.T
            inverse[columns] = inverse[:, columns] = loss[columns] = loss[:, columns] = 0.0
        return total


class _Made(_Settled):
    """Silenced at the makers: ½ T G_ss E[s²] of the unit's own rows."""

    def __init__(self, touch: Touch, weights: Array, known: LayerStatistics) -> None:
        layer = touch.layer
        _, bias = layer.read()
        constant = np.zeros(weights.shape[:2]) if bias is None else bias
        full = np.concatenate([weights, constant[:, :, None]], axis=2)
        second = np.einsum("goi,goi->go", full, known.activations.times(full))
        price = np.ones(second.shape) if known.gradients is None else known.gradients.diagonal()
        per_row = (0.5 * known.positions * price * second).ravel()
        self._costs = per_row[touch.indices].sum(axis=1)
