"""Cuts that empty whole branches: what goes was silenced, and goes only where a sum goes on without it."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import samples
from units.nets import BLOCKS, assert_same, network, parsed, run
from units.token_nets import TOKEN_BLOCKS, token_network

from onnxprune.cut import Cut, Evidence, decide, remove_cut
from onnxprune.data import open_data
from onnxprune.errors import BudgetError
from onnxprune.layers import find_layers
from onnxprune.model import load
from onnxprune.options import resolve
from onnxprune.passes.branches import remove_constant_branches
from onnxprune.passes.replace import replace_units
from onnxprune.progress import Silent
from onnxprune.speeds import WIDTHS, SpeedTable
from onnxprune.statistics import Gathering, collect
from onnxprune.units import unit_groups
from onnxprune.units.branches import exits
from onnxprune.units.families import find_families

EXAMPLES = int(os.environ.get("ONNXPRUNE_EXAMPLES", "60"))


def families_of(model):
    return find_families(unit_groups(model.graph), find_layers(model.graph))


def emptied(model, rng):
    """A cut that empties most families that may be, and halves most others."""
    families = families_of(model)
    may = exits(families)
    kept = [
        0 if family.name in may and rng.random() < 0.7 else int(rng.integers(1, family.size + 1))
        for family in families.families
    ]
    leaving = tuple(rng.permutation(family.size) for family in families.families)
    return Cut(families, leaving, np.array(kept, dtype=np.int64), ())


def assert_removal_is_silencing(model, feeds, seed):
    model = load(model).ir
    cut = emptied(model, np.random.default_rng(seed))
    silenced = model.clone()
    replace_units(silenced, *cut.masks())
    remove_cut(model, cut)
    before = run(silenced, feeds)
    assert_same(before, run(model, feeds, optimise=False))
    assert_same(before, run(model, feeds, optimise=True))
    return cut


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.sampled_from([*BLOCKS, "residual", "last"]), max_size=5), st.integers(0, 2**32 - 1))
@example(["last"], 0)
@example(["conv", "activation", "conv", "residual", "conv", "residual"], 7)
def test_emptying_a_branch_is_silencing_it(blocks, seed):
    model, feeds = network(["last", *blocks], seed)
    assert_removal_is_silencing(model, feeds, seed)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.sampled_from(TOKEN_BLOCKS), max_size=4), st.integers(0, 2**32 - 1))
def test_emptying_a_branch_of_tokens_is_silencing_it(blocks, seed):
    model, feeds = token_network(blocks, seed)
    assert_removal_is_silencing(model, feeds, seed)


BLOCK = """
    [one] a = Conv(x, w1, b1)
    b = Relu(a)
    [two] c = Conv(b, w2, b2)
"""
WEIGHTS = {"w1": (4, 3, 1, 1), "b1": (4,), "w2": (3, 4, 1, 1), "b2": (3,), "w3": (2, 3, 1, 1)}


def block(rest, weights=None, signature="float[n,3,5,5] x) => (float[n,2,5,5] y"):
    text = f"net ({signature}) {{ {BLOCK} {rest} [head] y = Conv(s, w3) }}"
    return load(parsed(text, {**WEIGHTS, **(weights or {})})).ir


def test_a_branch_behind_a_sum_may_be_emptied_and_leaves_its_bias():
    model = block("s = Add(x, c)")
    assert [layer.name for layer in exits(families_of(model))["one"]] == ["two"]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)}
    bias = model.graph.initializers["b2"].const_value.numpy().copy()
    weight = model.graph.initializers["w3"].const_value.numpy()[:, :, 0, 0].copy()
    families = families_of(model)
    kept = np.array([0 if family.name == "one" else family.size for family in families.families])
    cut = Cut(families, tuple(np.arange(family.size) for family in families.families), kept, ())
    remove_cut(model, cut)
    assert [layer.name for layer in find_layers(model.graph)] == ["head"]
    want = np.einsum("oc,nchw->nohw", weight, feeds["x"] + bias[:, None, None])
    np.testing.assert_allclose(run(model, feeds)["y"], want, atol=1e-5)  # float32 sums of three terms


@pytest.mark.parametrize(
    "rest, weights",
    [
        ("s = Relu(c)", {}),  # no sum
        ("d = Add(x, c) s = Add(d, b0)", {"b0": (3, 1, 1)}),
        ("m = Mul(x, c) s = Add(x, m)", {}),  # the sum's term is no linear layer's output
        ("g = GlobalAveragePool(b) h = Conv(g, w4) d = Add(x, c) s = Add(d, h)", {"w4": (3, 4, 1, 1)}),
        ("d = Add(x, c) e = Softmax<axis=1>(b) f = Conv(e, w4) s = Add(d, f)", {"w4": (3, 4, 1, 1)}),
    ],
    ids=["no sum", "sum", "product", "a second reader, broadcast", "a second reader that normalises"],
)
def test_which_branches_may_be_emptied(rest, weights, request):
    may = set(exits(families_of(block(rest, weights))))
    assert may == ({"one"} if request.node.callspec.id == "sum" else set())


def test_a_summand_that_varies_or_shapes_the_sum_stays():
    model = block("s = Add(x, c)")
    assert remove_constant_branches(model) == 0
    wide = load(
        parsed(
            "net (float[n,3,1,1] x, float[n,3,5,5] z) => (float[n,3,5,5] y) { c = Conv(z, w) y = Add(x, c) }",
            {"w": (3, 3, 1, 1)},
        )
    ).ir
    (layer,) = find_layers(wide.graph)
    layer.write(np.zeros((1, 3, 3)), None)
    assert remove_constant_branches(wide) == 0  # the sum has the shape of the constant summand


class TestWidths:
    """Which numbers a family may keep where `--round-to auto` measured the machine."""

    @staticmethod
    def kept(macs, block, **given):
        """Units kept of `one`, of 16, on a machine that computes whole blocks of channels."""
        text = (
            f"net (float[n,3,5,5] x) => (float[n,2,5,5] y) {{ {BLOCK} s = Add(x, c) [head] y = Conv(s, w3) }}"
        )
        weights = {**WEIGHTS, "w1": (16, 3, 3, 3), "b1": (16,), "w2": (3, 16, 1, 1)}
        model = load(parsed(text.replace("Conv(x, w1, b1)", "Conv<pads=[1,1,1,1]>(x, w1, b1)"), weights))
        table = SpeedTable({width: 5.0 + -(-width // block) * block for width in WIDTHS})
        options = resolve(macs=macs, round_to="auto", score="norm", replace="zero", **given)
        data = open_data(samples((3, 5, 5), 8), model.ir.graph.inputs)
        statistics = collect(model.ir, "", data, Gathering(gradients=False, provider="cpu"))
        evidence = Evidence(data, statistics, Gathering(provider="cpu"), Silent(), table)
        cut = decide(model.ir, find_layers(model.ir.graph), options, evidence)
        return {
            family.name: int(count) for family, count in zip(cut.families.families, cut.kept, strict=True)
        }

    def test_multiples_of_the_block_are_kept(self):
        assert self.kept(0.7, 8)["one"] == 8

    def test_where_half_a_block_costs_as_much_the_branch_goes_whole(self):
        assert self.kept(0.7, 16)["one"] == 0

    def test_it_does_not_where_more_than_one_unit_was_asked_for(self):
        with pytest.raises(BudgetError, match=r"--macs 0.7 cannot be met"):
            self.kept(0.7, 16, min_units=2)

    def test_it_does_not_where_one_unit_was_asked_for_explicitly(self):
        with pytest.raises(BudgetError, match=r"--macs 0.7 cannot be met"):
            self.kept(0.7, 16, min_units=1)

    def test_zero_as_the_minimum_lets_it_go_on_any_machine(self):
        assert self.kept(0.1, 8, min_units=0)["one"] == 0
