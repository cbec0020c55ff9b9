"""Budget: whole weights, floors, exclusions, and refusals that name the number."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units.nets import array, parsed, put

from onnxprune.budget import make_budget, require, select
from onnxprune.errors import BudgetError, UsageError
from onnxprune.layers import find_layers
from onnxprune.options import resolve

# 4·8·9 + 8 + 8 + 8 (norm, scale and shift) + 8·10 + 10 = 402, of which 288 + 80 are weights
NET = """net (float[n,4,6,6] x) => (float[n,10] y) {
    [block_conv] c = Conv(x, kernel, cb)
    i = InstanceNormalization(c, scale, shift)
    p = GlobalAveragePool(i)
    f = Flatten(p)
    [head] y = Gemm(f, fc, fb)
}"""
WEIGHTS = {"kernel": (8, 4, 3, 3), "cb": (8,), "scale": (8,), "shift": (8,), "fc": (8, 10), "fb": (10,)}


def net():
    return parsed(NET, WEIGHTS)


def budget_of(model, biases_change=True, exclude=(), **options):
    chosen = resolve(exclude=exclude, **options)
    usable, _ = select(find_layers(model.graph).layers, chosen, {})
    return make_budget(model, usable, chosen, biases_change)


@settings(max_examples=100, deadline=None)
@given(st.integers(100, 1000))
def test_weights_and_all_else_are_the_ratio_rounded_down(thousandths):
    budget = budget_of(net(), ratio=thousandths / 1000)
    assert budget.total == 402 and budget.target == thousandths * 402 // 1000
    assert budget.weights == budget.target - 34 and budget.sizes == {"block_conv": 288, "head": 80}


@pytest.mark.parametrize("kept", range(40, 403, 33))
def test_a_ratio_that_is_a_whole_count_is_that_count(kept):
    assert budget_of(net(), ratio=kept / 402).target == kept


def test_zeros_that_are_there_cost_nothing_and_are_not_brought_back():
    model = net()
    kernel = array(model, "kernel").copy()
    kernel[:4] = 0
    put(model, "kernel", kernel)
    assert budget_of(model, ratio=1).weights == 144 + 80
    assert budget_of(model, ratio=0.3).weights == int(0.3 * 402) - 34


@pytest.mark.parametrize("biases_change, fixed", [(True, 34), (False, 34 - 8)])
def test_a_bias_of_zeros_counts_only_where_a_surgeon_may_fill_it(biases_change, fixed):
    model = net()
    put(model, "cb", np.zeros(8, np.float32))
    assert budget_of(model, biases_change, ratio=0.5).weights == 201 - fixed


def test_zeros_among_what_no_surgeon_writes_cost_nothing():
    model = net()
    put(model, "shift", np.zeros(8, np.float32))
    assert budget_of(model, ratio=0.5).weights == 201 - 26


def test_an_excluded_layer_counts_whole():
    budget = budget_of(net(), ratio=0.5, exclude=("head",))
    assert list(budget.sizes) == ["block_conv"] and budget.weights == 201 - 34 - 80


def test_floors_are_shares_of_a_layer_rounded_up():
    budget = budget_of(net(), ratio=0.5, floors={"head": 0.33, "block*": 0.01, "fc": 0.1})
    assert budget.least == {"block_conv": 3, "head": 27}  # of two that match, the larger


@pytest.mark.parametrize("floors", [{}, {"*": 0.25}])
def test_an_impossible_ratio_is_refused_with_the_smallest_possible_one(floors):
    with pytest.raises(BudgetError) as raised:
        budget_of(net(), ratio=0.05, floors=floors)
    message = str(raised.value)
    assert "--ratio 0.05 keeps 20 of 402 parameters, but 34 are" in message
    assert ("and 92 by --floor" in message) == bool(floors)
    least = float(re.search(r"smallest possible ratio is ([\d.]+)", message)[1])
    budget = budget_of(net(), ratio=least, floors=floors)
    assert budget.weights == sum(budget.least.values())
    with pytest.raises(BudgetError):
        budget_of(net(), ratio=least - 1 / 402, floors=floors)


def test_without_layers_there_is_nothing_to_prune():
    layers = find_layers(net().graph)
    usable, left_out = select(layers.layers, resolve(ratio=0.5, exclude=("*",)), {})
    message = r"no layer is left to prune: excluded by --exclude '\*' \(2 nodes\); "
    with pytest.raises(BudgetError, match=message):
        require(usable, left_out)
    with pytest.raises(BudgetError, match="nothing in it is linear"):
        require([], [])
    require(layers.layers, left_out)


def test_without_gradients_the_remedy_is_a_score_that_needs_none():
    blocked = dict.fromkeys(("block_conv", "head"), "no gradient: If node 'cell'")
    usable, left_out = select(find_layers(net().graph).layers, resolve(ratio=0.5), blocked)
    message = r"If node 'cell' \(2 nodes\); --saliency wanda --allocation uniform"
    with pytest.raises(BudgetError, match=message):
        require(usable, left_out)


def test_a_pattern_needs_no_ratio():
    assert budget_of(net(), pattern="2:4").weights == 368


@pytest.mark.parametrize("ratio, weights", [(0.5, 167), (34 / 402, 0)])
def test_steps_are_geometric_from_all_weights_to_the_budget(ratio, weights):
    budget = budget_of(net(), ratio=ratio)
    assert budget.weights == weights and budget.at(1) == weights
    if weights:
        steps = [budget.at(share) for share in (0, 0.25, 0.5, 0.75, 1)]
        assert steps[0] == 368
        shares = np.array(steps[1:]) / steps[:-1]
        np.testing.assert_allclose(shares, (weights / 368) ** 0.25, rtol=0.01)  # whole numbers


# -- selection
# --------------------------------------------------------------------------------------------------


def names(pattern=(), blocked=None, floors=None):
    options = resolve(ratio=0.5, exclude=pattern, floors=floors or {})
    chosen, skipped = select(find_layers(net().graph).layers, options, blocked or {})
    return [layer.name for layer in chosen], {entry.name: entry.reason for entry in skipped}


@pytest.mark.parametrize("pattern", ["head", "fc", "he*", "f?"])
def test_patterns_match_node_and_weight_names(pattern):
    assert names((pattern,)) == (["block_conv"], {"head": f"excluded by --exclude {pattern!r}"})


def test_blocked_layers_keep_their_reason():
    assert names(blocked={"head": "no gradient: X"}) == (["block_conv"], {"head": "no gradient: X"})


def test_a_pattern_that_names_no_layer_is_a_usage_error():
    for asked in ({"pattern": ("head", "tail*")}, {"floors": {"tail*": 0.5}}):
        with pytest.raises(
            UsageError, match=r"no layer or weight is named like 'tail\*'; see `onnxprune inspect`"
        ):
            names(**asked)
