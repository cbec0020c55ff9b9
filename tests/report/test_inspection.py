"""Inspection with statistics: what it says of layers and units is what compress would go by."""

import numpy as np
import onnx_ir as ir
import pytest
from sweep.test_walk import net
from tiny import samples

from onnxprune import calibrate, compress, load
from onnxprune.errors import StatisticsError
from onnxprune.layers import find_layers
from onnxprune.report import console
from onnxprune.report.inspection import inspect_model
from onnxprune.saliency.units import removal_order
from onnxprune.statistics import Statistics
from onnxprune.units import unit_groups
from onnxprune.units.families import find_families


@pytest.fixture
def known(tmp_path):
    """A tiny residual network on disk, its samples and statistics."""
    model, shape = net("residual", 0)
    path = tmp_path / "net.onnx"
    ir.save(model, path)
    x = samples(shape, 48)
    return path, x, calibrate(path, x)


def test_shares_of_importance_are_those_of_a_compression(known):
    path, x, statistics = known
    rows = inspect_model(path, [statistics]).layers
    pruned = compress(path, x, ratio=0.9, statistics=statistics, surgeon="none", provider="cpu").report
    assert {row.name: row.importance for row in rows} == pytest.approx(
        {row.name: row.importance for row in pruned.layers}
    )
    assert sum(row.importance for row in rows) == pytest.approx(1)
    totals = [row.loss_per_weight * row.weights for row in rows]
    assert np.array(totals) / sum(totals) == pytest.approx([row.importance for row in rows])


def test_the_cheapest_unit_is_the_one_that_leaves_first(known):
    path, _, statistics = known
    graph = load(path).graph
    families = find_families(unit_groups(graph), find_layers(graph))
    rows = {row.name: row.costs for row in inspect_model(path, [statistics]).units}
    assert len(rows) == len(families.families) > 1
    for family in families.families:
        order = removal_order(family, statistics.layers, "linear")
        assert int(np.argmin(rows[family.name])) == order.leaving[0]
        assert min(rows[family.name]) == pytest.approx(order.loss[1], rel=1e-3)  # written with four digits
        assert len(rows[family.name]) == family.size


def test_what_no_gradient_reaches_is_not_scored_and_said(known):
    path, _, statistics = known
    (name, *_) = inspect_model(path).units[0].readers
    statistics.blocked[name] = "no gradient through Odd"
    inspection = inspect_model(path, [statistics])
    row = next(row for row in inspection.layers if row.name == name)
    assert row.importance is None and row.loss_per_weight is None
    assert any(
        entry.name == name and entry.reason == "not scored: no gradient through Odd"
        for entry in inspection.skipped
    )
    others = [row.importance for row in inspection.layers if row.name != name]
    assert sum(others) == pytest.approx(1)
    assert any(row.costs is None for row in inspection.units if name in row.readers)


def test_without_statistics_nothing_is_said(known, capsys):
    path, _, statistics = known
    inspection = inspect_model(path)
    assert inspection.statistics is None and {row.importance for row in inspection.layers} == {None}
    assert {row.costs for row in inspection.units} == {None}
    console.print_inspection(inspection)
    assert "loss a" not in capsys.readouterr().out
    console.print_inspection(inspect_model(path, [statistics]))
    assert "loss a weight" in (shown := capsys.readouterr().out) and "loss a unit" in shown


def test_statistics_of_another_model_are_refused(known):
    path, _, statistics = known
    other = Statistics("0" * 64, 1, "none", "mean", 0, {}, statistics.layers)
    with pytest.raises(StatisticsError, match="another model"):
        inspect_model(path, [other])
