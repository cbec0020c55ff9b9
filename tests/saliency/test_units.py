"""Order and cost of leaving units, against brute-force least squares; families and MACs of real graphs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from tiny import TWINS, twin_model

from onnxprune.errors import BudgetError
from onnxprune.layers import find_layers
from onnxprune.passes.remove_units import remove_units
from onnxprune.saliency.units import Order, _Alone, _Repaired, by_score, norm
from onnxprune.shares import Limits, in_every_family, over_all, steps, to_macs
from onnxprune.statistics import Gram, LayerStatistics
from onnxprune.units import unit_groups
from onnxprune.units.families import Costs, Families, find_families

UNITS, WIDTH, OUT, ROWS = 5, 3, 4, 4000


def known(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, LayerStatistics]:
    inputs = rng.normal(size=(ROWS, UNITS * WIDTH)) @ rng.normal(size=(UNITS * WIDTH,) * 2) + 1.0
    gradients = rng.normal(size=(ROWS, OUT)) @ rng.normal(size=(OUT, OUT))
    wide = np.concatenate([inputs, np.ones((ROWS, 1))], axis=1)
    statistics = LayerStatistics(
        Gram((wide.T @ wide)[None], ROWS), Gram((gradients.T @ gradients)[None], ROWS), ROWS, ROWS / 2
    )
    return rng.normal(size=(1, OUT, UNITS * WIDTH)), inputs, gradients, statistics


def columns() -> np.ndarray:
    return np.arange(UNITS * WIDTH).reshape(UNITS, 1, WIDTH)


def lost(weights: np.ndarray, inputs: np.ndarray, gradients: np.ndarray, gone: np.ndarray) -> float:
    """½ T tr(G E[e eᵀ]) of the error after the best refit, bias free, of what the others give."""
    centred = inputs - inputs.mean(axis=0)
    wanted = centred @ weights[0].T
    left = np.delete(centred, gone, axis=1)
    error = wanted - left @ np.linalg.lstsq(left, wanted, rcond=None)[0]
    return float(0.5 * 2 * np.trace(gradients.T @ gradients / ROWS @ (error.T @ error / ROWS)))


def test_linear_costs_are_those_of_the_best_refit_one_unit_after_another():
    weights, inputs, gradients, statistics = known(np.random.default_rng(0))
    term = _Repaired(columns(), weights, statistics)
    total = 0.0
    for count, unit in enumerate((3, 0, 4)):
        before = term.costs()[unit]
        together = term.leave(np.array([unit]))
        assert together == pytest.approx(before, rel=1e-9)  # the same formula, two ways to compute it
        total += together
        gone = columns()[[3, 0, 4][: count + 1]].ravel()
        # the ridge of 1e-4 of the mean diagonal, which the oracle has not
        assert total == pytest.approx(lost(weights, inputs, gradients, gone), rel=2e-2)


def test_units_that_leave_together_cost_what_they_cost_one_by_one():
    weights, _, _, statistics = known(np.random.default_rng(1))
    one, both = (_Repaired(columns(), weights, statistics) for _ in range(2))
    apart = one.leave(np.array([1])) + one.leave(np.array([2]))
    assert both.leave(np.array([1, 2])) == pytest.approx(apart, rel=1e-8)
    others = [0, 3, 4]
    np.testing.assert_allclose(both.costs()[others], one.costs()[others], rtol=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_zero_and_mean_costs_are_the_error_of_doing_just_that(centred: bool):
    weights, inputs, gradients, statistics = known(np.random.default_rng(2))
    costs = _Alone(columns(), weights, statistics, centred=centred).costs()
    for unit in range(UNITS):
        part = inputs[:, columns()[unit, 0]]
        part = part - part.mean(axis=0) if centred else part
        error = part @ weights[0][:, columns()[unit, 0]].T
        want = np.trace(gradients.T @ gradients / ROWS @ (error.T @ error / ROWS))
        assert costs[unit] == pytest.approx(want, rel=1e-9)  # float64 throughout


def test_by_score_takes_the_lowest_first_and_never_gains():
    order = by_score(np.array([3.0, -1.0, 2.0]))
    assert order.leaving.tolist() == [1, 2, 0]
    assert (np.diff(order.loss) >= 0).all()


def families_of(name: str):
    model = twin_model(name)
    groups = unit_groups(model.graph)
    layers = find_layers(model.graph)
    return model, find_families(groups, layers), layers


@pytest.mark.parametrize("name", sorted(TWINS))
def test_macs_and_masks_are_those_of_the_graph_with_the_units_cut(name: str):
    model, found, layers = families_of(name)
    if not found.families:
        assert found.skipped
        return
    costs = Costs(found, {layer.name: 1.0 for layer in layers})
    assert costs.dense == sum(layer.size for layer in layers if layer.name in found.views)
    kept = np.array([max(1, family.size // 2) for family in found.families])
    cut = np.concatenate([family.units[count:] for family, count in zip(found.families, kept, strict=True)])
    assert all(norm(family).shape == (family.size,) for family in found.families)
    masks = found.masks(cut)
    remove_units(model, unit_groups(model.graph), cut)
    after = {layer.name: layer.size for layer in find_layers(model.graph)}
    assert costs.macs(kept.astype(float)) == sum(after[layer] for layer in found.views)
    for layer, mask in masks.items():
        assert int(mask.sum()) == after[layer]


def limits_of(sizes: Iterable[int], least: int = 1, step: int = 1) -> Limits:
    sizes = list(sizes)
    return Limits(np.array(sizes, dtype=np.int64), tuple(steps(size, least, step) for size in sizes))


def orders_for(found: Families) -> list[Order]:
    rng = np.random.default_rng(4)
    return [by_score(rng.random(family.size)) for family in found.families]


@pytest.mark.parametrize("share", [0.8, 0.5])
@pytest.mark.parametrize("step", [1, 2])
def test_macs_are_met_and_not_by_more_than_one_step(share: float, step: int):
    for name in sorted(TWINS):
        _, found, layers = families_of(name)
        costs = Costs(found, {layer.name: 1.0 for layer in layers})
        limits = limits_of((family.size for family in found.families), step=step)
        if not found.families or costs.macs(limits.floor().astype(float)) > share * costs.dense:
            continue
        kept = to_macs(limits, orders_for(found), costs, share)
        assert costs.macs(kept.astype(float)) <= share * costs.dense
        assert (kept >= limits.floor()).all()
        assert ((kept % step == 0) | (kept == limits.sizes)).all()
        for place in np.flatnonzero(kept < limits.sizes):
            more = kept.astype(float)
            more[place] = min(more[place] + step, limits.sizes[place])
            assert costs.macs(more) > share * costs.dense


def test_units_by_fraction_by_number_and_over_all():
    limits = limits_of([8, 4, 1], least=2)
    assert in_every_family(limits, 0.5).tolist() == [4, 2, 1]
    assert in_every_family(limits, 3).tolist() == [5, 2, 1]
    orders = [by_score(np.ones(size)) for size in limits.sizes]
    assert over_all(limits, orders, 0.5).sum() == 7  # 13 less 6
    with pytest.raises(BudgetError, match="must stay; ask for less"):
        over_all(limits, orders, 0.9)


def test_a_share_of_macs_out_of_reach_says_what_can_be_reached():
    for name in sorted(TWINS):
        _, found, layers = families_of(name)
        if found.families:
            break
    costs = Costs(found, {layer.name: 1.0 for layer in layers})
    limits = limits_of(family.size for family in found.families)
    with pytest.raises(BudgetError, match=r"--macs 1e-06 cannot be met: .* remain"):
        to_macs(limits, orders_for(found), costs, 1e-6)
