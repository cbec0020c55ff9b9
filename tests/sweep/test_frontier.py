"""The frontier: at every cut the values of a full run, spilled or not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TWINS, data_for, samples, twin_model
from units.nets import BLOCKS, network, parsed, put

from onnxprune import spilling
from onnxprune.reading import ancestors
from onnxprune.session import Session
from onnxprune.sweep.frontier import Frontier


def float_values(model):
    return [
        v for node in model.graph for v in node.outputs if v.dtype is not None and v.dtype.is_floating_point()
    ]


def full_run(model, data):
    """Every value of every batch, by one session with all of them as outputs."""
    whole = model.clone()
    named = {v.name: v for v in float_values(whole)}
    whole.graph.outputs.clear()
    whole.graph.outputs.extend(named.values())
    session = Session(whole, "cpu", optimise=False)
    return [session.run(batch.feeds) for batch in data.batches()]


def check(frontier, value, want):
    for batch, values in enumerate(want):
        scale = np.abs(values[value.name]).max(initial=1e-6)
        # float32, and each piece optimised on its own
        np.testing.assert_allclose(frontier.get(value, batch), values[value.name], atol=1e-5 * scale)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("memory", [0, 3_000, 1 << 30])
def test_values_at_every_cut_are_those_of_a_full_run(name, memory):
    model = twin_model(name)
    data = data_for(model, samples(TWINS[name].shape, 7), 3)
    want = full_run(model, data)
    frontier = Frontier(model, data, "cpu", memory)
    assert frontier.batch_of == [0, 1, 2]
    for value in float_values(model):
        frontier.advance([value])
        check(frontier, value, want)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=6), st.integers(0, 2**32 - 1), st.integers(1, 4)
)
def test_values_of_random_networks_in_random_strides(blocks, seed, stride):
    model, feeds = network(blocks, seed)
    for number, node in enumerate(model.graph):
        node.name = f"node_{number}"
    data = data_for(model, feeds, 1)
    want = full_run(model, data)
    frontier = Frontier(model, data, "cpu")
    values = float_values(model)
    for value in [*values[::stride], values[-1]]:
        frontier.advance([value])
        check(frontier, value, want)


def test_several_values_at_once_and_the_model_input():
    model = twin_model("tokens")
    data = data_for(model, samples((5, 6), 4), 2)
    want, frontier = full_run(model, data), Frontier(model, data, "cpu")
    q, v = (next(value for value in float_values(model) if value.name == name) for name in ("q", "v"))
    frontier.advance([q, v, model.graph.inputs[0]])
    check(frontier, q, want)
    check(frontier, v, want)
    np.testing.assert_array_equal(frontier.get(model.graph.inputs[0], 1), samples((5, 6), 4)[2:])
    frontier.advance([q])  # again, and with nothing to run
    check(frontier, q, want)


def test_constants_are_at_hand():
    model = twin_model("mlp")
    frontier = Frontier(model, data_for(model, samples((7,), 4)), "cpu")
    weight = model.graph.initializers["w1"]
    np.testing.assert_array_equal(frontier.get(weight, 0), weight.const_value.numpy())


def test_weights_changed_ahead_of_the_cut_count():
    model = twin_model("mlp")
    data = data_for(model, samples((7,), 4))
    frontier = Frontier(model, data, "cpu")
    hidden, y = (next(v for v in float_values(model) if v.name == name) for name in ("a", "y"))
    frontier.advance([hidden])
    put(model, "w2", np.zeros((6, 4), np.float32))
    put(model, "b2", np.full(4, 7, np.float32))
    frontier.advance([y])
    assert (frontier.get(y, 0) == 7).all()


def test_what_nothing_ahead_reads_is_forgotten():
    model = twin_model("cnn")
    frontier = Frontier(model, data_for(model, samples((3, 9, 8), 4)), "cpu")
    held = []
    for value in float_values(model):
        frontier.advance([value])
        held.append({v.name for v in frontier._store.values()})
    assert all(len(names) == 1 for names in held)  # a chain: the cut is one value


def test_spilled_files_go_with_their_values_and_all_with_the_frontier(monkeypatch):
    folders = []
    real = spilling.mkdtemp
    monkeypatch.setattr(spilling, "mkdtemp", lambda **given: folders.append(made := real(**given)) or made)
    model = twin_model("mlp")
    frontier = Frontier(model, data_for(model, samples((7,), 9), 3), "cpu", 0)
    for value in float_values(model):
        frontier.advance([value])
        assert len(list(Path(folders[0]).iterdir())) == 3  # a file a batch
        assert isinstance(frontier.get(value, 0), np.memmap)
    del frontier
    assert len(folders) == 1 and not Path(folders[0]).exists()


def test_values_that_a_subgraph_captures_are_kept_for_it():
    text = """net (float[n,3] x, bool c) => (float[n,3] y) {
        [one] h = MatMul(x, w)
        [two] g = Relu(h)
        [choice] i = If (c) <then_branch = a () => (float[n,3] p) { p = Add(h, h) },
                             else_branch = b () => (float[n,3] q) { q = Neg(h) }>
        [sum] y = Add(i, g)
    }"""
    model = parsed(text, {"w": (3, 3)})
    data = data_for(model, {"x": samples((3,), 4), "c": np.array(True)}, 2)
    want, frontier = full_run(model, data), Frontier(model, data, "cpu")
    values = {v.name: v for v in float_values(model)}
    for name in ("g", "i", "y"):
        frontier.advance([values[name]])
        check(frontier, values[name], want)
    choice = next(node for node in model.graph if node.op_type == "If")
    assert {node.name for node in ancestors([choice.outputs[0]])} == {"one", "choice"}
