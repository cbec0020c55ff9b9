"""Cut: which units go. Decided from statistics and options, before anything is changed.

families → an order of leaving in each (`saliency.units`) → how many each keeps (`shares`) → classes, masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Data
from onnxprune.errors import BudgetError, UsageError
from onnxprune.layers import Layer, Layers, Skipped
from onnxprune.options import Heads, Options
from onnxprune.passes.branches import remove_branches
from onnxprune.passes.remove_units import remove_units
from onnxprune.progress import Progress
from onnxprune.saliency import units as saliency
from onnxprune.saliency.units import Order
from onnxprune.shares import in_every_family, over_all, to_macs
from onnxprune.speeds import SpeedTable
from onnxprune.statistics import FirstOrders, Gathering, Site, Statistics, collect_first_order
from onnxprune.units import same_units, unit_groups
from onnxprune.units.branches import exits
from onnxprune.units.families import Costs, Families, Family, find_families
from onnxprune.widths import allowed_widths

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]
Masks = dict[str, npt.NDArray[np.bool_]]

FIRST_ORDER = frozenset({"rs", "abs_rs", "mrs", "abs_mrs"})
_REASONS_SHOWN = 3
_REPAIR = 2.0  # exponent of depth; see docs/design.md for what others gave


@dataclass(frozen=True, eq=False)
class Cut:
    """`leaving` has the places of each family's units in the order they go, `kept` how many stay."""

    families: Families
    leaving: tuple[Slots, ...]
    kept: npt.NDArray[np.int64]
    skipped: tuple[Skipped, ...]
    approximate: bool = False  # whether normalised axes were cut, too
    heads: Heads = "whole"
    loss: str = ""  # of first-order scores, a sentence

    def gone(self, share: float = 1.0) -> list[Slots]:
        """By family, the places of the units gone after a geometric share 0…1 of the way."""
        return [
            order[: len(order) - round(len(order) * (kept / len(order)) ** share)]
            for order, kept in zip(self.leaving, self.kept.tolist(), strict=True)
        ]

    def units(self, share: float = 1.0) -> Slots:
        """The same as classes of `families.groups`, int64[n]."""
        pairs = zip(self.families.families, self.gone(share), strict=True)
        return np.concatenate([family.units[places] for family, places in pairs])

    def emptied(self) -> list[str]:
        """Families that keep no unit."""
        pairs = zip(self.families.families, self.kept.tolist(), strict=True)
        return [family.name for family, kept in pairs if not kept]

    def masks(self, share: float = 1.0) -> tuple[Masks, Masks]:
        """Weights that stay, [groups, d_out, d_in], and rows that give zero, [groups, d_out], by layer."""
        units = self.units(share)
        return self.families.masks(units), self.families.silent(units)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which each family's units leave; `loss` is of first-order scores, a sentence."""

    families: Families
    orders: tuple[Order, ...]
    skipped: tuple[Skipped, ...]
    loss: str


@dataclass(frozen=True)
class Evidence:
    """What decisions rest on: statistics where the score or the budget needs them, and how to get more.

    `speeds` has the measured widths where `--round-to auto` asks for the fast ones.
    """

    data: Data
    statistics: Statistics | None
    how: Gathering
    progress: Progress
    speeds: SpeedTable | None = None


def decide(model: ir.Model, layers: Layers, options: Options, evidence: Evidence) -> Cut:
    """Decide which units of `model` go.

    Args:
        model: the normalised dense model; not changed.
        layers: of that model.
        options: the budget of units or MACs, the score and the replacement.
        evidence: statistics and data.

    Raises:
        BudgetError: nothing can be removed, or not as much as asked for.
        UsageError: a pattern that names no layer.
    """
    return share(rank(model, layers, options, evidence), options, evidence)


def rank(model: ir.Model, layers: Layers, options: Options, evidence: Evidence) -> Ranking:
    """The first half of `decide`: which units may go and in which order; the budget is not looked at.

    Raises:
        BudgetError: nothing can be removed.
        UsageError: a pattern that names no layer.
    """
    families = find_families(unit_groups(model.graph, options.approximate, options.heads), layers)
    sites = {family.name: _sites(family, families) for family in families.families}
    firsts = FirstOrders({}, {}, "")
    if options.score in FIRST_ORDER:
        wanted = dict.fromkeys(site for found in sites.values() for site in found)
        firsts = collect_first_order(model, evidence.data, list(wanted), evidence.how, evidence.progress)
    chosen, skipped = _select(families.families, layers, options, _blocked(evidence, options, firsts, sites))
    everything = (*families.skipped, *skipped)
    if not chosen:
        raise BudgetError(_nothing(everything))
    families = Families(families.groups, chosen, everything, families.views, families.summing)
    orders = _orders(chosen, sites, firsts, options, evidence)
    return Ranking(families, tuple(orders), everything, firsts.loss)


def share(ranking: Ranking, options: Options, evidence: Evidence) -> Cut:
    """The second half: how many units of each family the budget leaves.

    Raises:
        BudgetError: not as much can be removed as asked for.
    """
    families, orders = ranking.families, ranking.orders
    priced = _after_repair(families, orders) if options.replace == "linear" else orders
    kept = _shares(families, priced, options, evidence)
    leaving = tuple(order.leaving for order in orders)
    return Cut(families, leaving, kept, ranking.skipped, options.approximate, options.heads, ranking.loss)


def remove_cut(model: ir.Model, cut: Cut) -> None:
    """Take the units of the cut out of `model`, a copy of the model it was decided on, in place."""
    remove_branches(model, {layer.name for name in cut.emptied() for layer in exits(cut.families)[name]})
    groups = unit_groups(model.graph, cut.approximate, cut.heads)
    remove_units(model, groups, same_units(cut.families.groups, cut.units(), groups))


# -- which families ------------------------------------------------------------------------------------------


def _select(
    families: Sequence[Family], layers: Layers, options: Options, blocked: Mapping[str, str]
) -> tuple[tuple[Family, ...], list[Skipped]]:
    for pattern in options.units_of:
        if not any(layer.matches(pattern) for layer in layers):
            raise UsageError(f"no layer or weight is named like {pattern!r}; see `onnxprune inspect`")
    chosen, skipped = [], []
    for family in families:
        excluded = next(
            (p for p in options.exclude if any(layer.matches(p) for layer in family.layers)), None
        )
        if excluded is not None:
            skipped.append(Skipped(family.name, f"its units touch a layer of --exclude {excluded!r}"))
        elif family.name in blocked:
            skipped.append(Skipped(family.name, blocked[family.name]))
        else:
            chosen.append(family)
    return tuple(chosen), skipped


def _blocked(
    evidence: Evidence, options: Options, firsts: FirstOrders, sites: Mapping[str, Sequence[Site]]
) -> dict[str, str]:
    """Families whose score needs a gradient that some layer does not get."""
    if options.score == "kfac" and evidence.statistics is not None:
        reasons = {name: reason for name, reason in evidence.statistics.blocked.items()}
        found = {
            name: [reasons[site.layer] for site in places if site.layer in reasons]
            for name, places in sites.items()
        }
    else:
        found = {
            name: [firsts.blocked[site] for site in places if site in firsts.blocked]
            for name, places in sites.items()
        }
    return {name: reasons[0] for name, reasons in found.items() if reasons}


def _nothing(skipped: Sequence[Skipped]) -> str:
    counted = Counter(entry.reason for entry in skipped).most_common(_REASONS_SHOWN)
    why = "; ".join(f"{reason} ({count} families)" if count > 1 else reason for reason, count in counted)
    remedy = "`onnxprune inspect` shows what there is"
    if any("no gradient" in entry.reason for entry in skipped):
        remedy = "--score norm needs no gradient"
    return f"no unit can be removed: {why or 'no layer makes units that another layer reads'}; {remedy}"


# -- in which order ------------------------------------------------------------------------------------------


def _orders(
    families: Sequence[Family],
    sites: Mapping[str, Sequence[Site]],
    firsts: FirstOrders,
    options: Options,
    evidence: Evidence,
) -> list[Order]:
    rng = np.random.default_rng(options.seed)
    orders = []
    with evidence.progress.stage("units", len(families)) as advance:
        for family in families:
            if options.score == "kfac":
                assert evidence.statistics is not None  # gathered, since this score needs them
                order = saliency.removal_order(family, evidence.statistics.layers, options.replace)
            elif options.score in FIRST_ORDER:
                touches = family.readers or family.makers
                pairs = [
                    (saliency.channels(touch, site.side), firsts.of[site])
                    for touch, site in zip(touches, sites[family.name], strict=True)
                ]
                order = saliency.by_score(saliency.first_order(options.score, pairs))
            else:
                scores = saliency.norm(family) if options.score == "norm" else rng.random(family.size)
                order = saliency.by_score(scores)
            orders.append(order)
            advance(1)
    return orders


def _sites(family: Family, families: Families) -> list[Site]:
    """Where the units' activations are: at the readers' inputs; at the makers' outputs if none reads."""
    side: Literal["input", "output"] = "input" if family.readers else "output"
    return [
        Site(touch.layer.name, side, _channel_axis(families, touch.layer, side))
        for touch in (family.readers or family.makers)
    ]


def _channel_axis(families: Families, layer: Layer, side: Literal["input", "output"]) -> int:
    """The axis whose classes are the layer's columns, or its rows."""
    groups, use = families.groups, layer.uses[0]
    kernel = layer.kernel if side == "input" else 1
    labels = families.columns(layer.name) if side == "input" else families.rows(layer.name)
    wanted = labels.ravel()[::kernel]
    axes = groups.axes(use.input if side == "input" else use.output) or []
    found = [
        axis
        for axis, slots in enumerate(axes)
        if slots is not None and np.array_equal(groups.labels[slots], wanted)
    ]
    return found[-1]


def _after_repair(families: Families, orders: Sequence[Order]) -> list[Order]:
    """The same orders, losses weighted by depth²: 1 for the last layer, whose errors nobody behind repairs.

    Depth is the place of a family's last reader among all layers, in 0…1. Scores are the dense network's and
    do not see that the sweep refits everything behind; unweighted, they starve the last layers.
    """
    place = {name: (index + 1) / len(families.views) for index, name in enumerate(families.views)}
    return [
        Order(order.leaving, order.loss * max(place[layer.name] for layer in family.layers) ** _REPAIR)
        for family, order in zip(families.families, orders, strict=True)
    ]


# -- how many ------------------------------------------------------------------------------------------------


def _shares(
    families: Families, orders: Sequence[Order], options: Options, evidence: Evidence
) -> npt.NDArray[np.int64]:
    limits = allowed_widths(families, options, evidence.speeds)
    if options.macs is not None:
        return to_macs(limits, orders, Costs(families, _positions(families, evidence)), options.macs)
    assert options.units is not None  # one of the two budgets was given
    if options.scope == "layer":
        return in_every_family(limits, options.units)
    return over_all(limits, orders, options.units)


def _positions(families: Families, evidence: Evidence) -> dict[str, float]:
    if evidence.statistics is None:
        return {}
    return {name: evidence.statistics.layers[name].positions for name in families.views}
