"""Targets: how far a layer's output is followed into sums, and what is subtracted there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units.nets import parsed

from onnxprune.sweep.targets import find_target

HEAD = "net (float[n,3] x, float[n,3] c, float[n,3] d, float[1,3] row) => (float[n,3] y, float[q] z)"


def target(nodes, start="s", available=lambda value: True):
    """The target of value `start`; `nodes` begin behind it."""
    text = f"{HEAD} {{ [it] s = MatMul(x, w) {nodes} q = Shape(c) z = Cast<to=1>(q) }}"
    model = parsed(text, {"w": (3, 3)})
    output = next(v for node in model.graph for v in node.outputs if v.name == start)
    found = find_target(output, available)
    return found.value.name, found.sign, [(factor, term.name) for factor, term in found.terms]


@pytest.mark.parametrize(
    "nodes, want",
    [
        ("y = Add(s, c)", ("y", 1, [(1, "c")])),
        ("y = Add(c, s)", ("y", 1, [(1, "c")])),
        ("y = Sub(s, c)", ("y", 1, [(-1, "c")])),
        ("y = Sub(c, s)", ("y", -1, [(1, "c")])),
        ("t = Add(s, c) y = Sub(d, t)", ("y", -1, [(-1, "c"), (1, "d")])),
        ("t = Sub(c, s) y = Sub(d, t)", ("y", 1, [(-1, "c"), (1, "d")])),
        ("i = Identity(s) t = Add(c, i) y = Identity(t)", ("y", 1, [(1, "c")])),
        ("i = Dropout(s) y = Add(c, i)", ("y", 1, [(1, "c")])),
        ("y = Add(s, row)", ("y", 1, [(1, "row")])),  # a term that is broadcast is subtracted all the same
        ("r = Relu(s) y = Add(r, c)", ("s", 1, [])),
        ("y = Mul(s, c)", ("s", 1, [])),
        ("y = Add(s, s)", ("s", 1, [])),
        ("r = Relu(s) y = Add(s, r)", ("s", 1, [])),  # read twice
        (
            "t = Add(s, c) r = Relu(t) y = Add(r, t)",
            ("t", 1, [(1, "c")]),
        ),  # the sum is read twice: stop there
        ("y = Sum(s, c)", ("s", 1, [])),
    ],
)
def test_target(nodes, want):
    assert target(nodes) == want


def test_an_output_of_the_graph_is_its_own_target():
    model = parsed(
        "net (float[n,3] x) => (float[n,3] s, float[n,3] y) { s = MatMul(x, w) y = Add(s, x) }", {"w": (3, 3)}
    )
    found = find_target(model.graph.outputs[0], lambda value: True)
    assert found.value.name == "s" and not found.terms


def test_a_branch_that_is_not_there_yet_is_not_waited_for():
    nodes = "t = Add(s, c) y = Add(t, d)"
    assert target(nodes, available=lambda value: value.name != "c") == ("s", 1, [])
    assert target(nodes, available=lambda value: value.name != "d") == ("t", 1, [(1, "c")])


def test_an_add_that_broadcasts_the_layer_is_refused():
    """Each number of s stands for several of the sum: no single value of s makes up for all of them."""
    model = parsed(
        "net (float[n,3] x, float[k,n,3] deep) => (float[k,n,3] y) { s = MatMul(x, w) y = Add(s, deep) }",
        {"w": (3, 3)},
    )
    assert find_target(next(iter(model.graph)).outputs[0], lambda value: True).value.name == "s"
    model = parsed(
        "net (float[n,1] x, float[n,3] c) => (float[n,3] y) { s = MatMul(x, w) y = Add(s, c) }", {"w": (1, 1)}
    )
    assert find_target(next(iter(model.graph)).outputs[0], lambda value: True).value.name == "s"


def test_sizes_that_are_not_known_to_be_equal_are_refused():
    model = parsed(
        "net (float[n,3] x, float[m,3] c) => (float[o,3] y) { s = MatMul(x, w) y = Add(s, c) }", {"w": (3, 3)}
    )
    assert find_target(next(iter(model.graph)).outputs[0], lambda value: True).value.name == "s"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Add", "Sub"]), st.booleans()), max_size=5))
def test_sign_and_terms_solve_any_chain_of_sums(chain):
    rng = np.random.default_rng(0)
    nodes, values, current, number = [], {}, "s", rng.standard_normal()
    total, others = number, []
    for index, (op, turned) in enumerate(chain):
        term, after = f"c{index}", "y" if index == len(chain) - 1 else f"t{index}"
        values[term] = rng.standard_normal()
        pair = (term, current) if turned else (current, term)
        nodes.append(f"{after} = {op}({pair[0]}, {pair[1]})")
        numbers = {current: total, term: values[term]}
        total = numbers[pair[0]] + (1 if op == "Add" else -1) * numbers[pair[1]]
        current = after
        others.append(f"float[n,3] {term}")
    if not chain:
        nodes, others = ["y = Relu(s)"], []
    given_values = ", ".join(["float[n,3] x", *others])
    text = f"net ({given_values}) => (float[n,3] y) {{ s = MatMul(x, w) {' '.join(nodes)} }}"
    found = find_target(next(iter(parsed(text, {"w": (3, 3)}).graph)).outputs[0], lambda value: True)
    rest = sum(factor * values[term.name] for factor, term in found.terms)
    assert found.value.name == ("y" if chain else "s")
    assert found.sign * (total - rest) == pytest.approx(number)
