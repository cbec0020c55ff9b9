"""Prepared: it gives what single runs give, and works out once what need not be done again."""

import numpy as np
import onnx_ir as ir
import pytest
from sweep.test_walk import net
from tiny import samples

from onnxprune import compress, cut, prepared
from onnxprune.evaluate import evaluate
from onnxprune.model import parameters
from onnxprune.options import resolve
from onnxprune.prepared import Prepared


@pytest.fixture
def saved(tmp_path):
    model, shape = net("residual")
    ir.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx", samples(shape, 48)


@pytest.fixture
def calls(monkeypatch):
    """How often statistics were gathered and units ranked."""
    counted = {"gather": [], "rank": []}

    def count(module, name):
        original = getattr(module, name)

        def counting(*given, **named):
            counted[name].append(given)
            return original(*given, **named)

        monkeypatch.setattr(prepared, name, counting)

    count(prepared, "gather")
    count(cut, "rank")
    return counted


def same(one, other):
    arrays = parameters(other)
    assert parameters(one).keys() == arrays.keys()
    for name, tensor in parameters(one).items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name].numpy())


@pytest.mark.parametrize(
    "recipe, axis, values",
    [
        ("default", "ratio", (0.5, 0.3)),
        ("mlprune", "ratio", (0.5, 0.3)),
        ("default", "macs", (0.7, 0.4)),
        ("mean-replacement", "units", (0.2, 0.5)),
    ],
)
def test_every_budget_gives_what_a_run_of_its_own_gives(saved, calls, recipe, axis, values):
    path, x = saved
    methods = [resolve(recipe, **{axis: value}, provider="cpu") for value in values]
    several = Prepared(path, x, methods)
    made = [several.prune(method).model for method in methods]
    assert len(calls["gather"]) == 1 and len(calls["rank"]) == (axis != "ratio")
    for value, model in zip(values, made, strict=True):
        same(model, compress(path, x, recipe=recipe, **{axis: value}, provider="cpu").model)


def test_statistics_hold_what_any_of_the_methods_needs(saved, calls):
    path, x = saved
    methods = [resolve(name, ratio=0.4, provider="cpu") for name in ("wanda", "magnitude", "default")]
    several = Prepared(path, x, methods)
    for method in methods:
        several.prune(method)
    (gathered,) = calls["gather"]
    assert gathered[3].gradients  # which wanda alone, the first to ask, would not have wanted


def test_another_average_is_another_set(saved, calls):
    path, x = saved
    methods = [resolve(name, ratio=0.4, provider="cpu") for name in ("mlprune", "default")]
    several = Prepared(path, x, methods)
    for method in (*methods, *methods):
        several.prune(method)
    assert [given[3].average for given in calls["gather"]] == ["exponential", "mean"]


@pytest.mark.parametrize("budget", [{"ratio": 0.3}, {"macs": 0.5}, {"macs": 0.7, "ratio": 0.3}])
def test_a_sketch_has_the_shape_of_the_real_one(saved, budget):
    path, x = saved
    options = resolve(**budget, provider="cpu")
    several = Prepared(path, x, [options])
    real, sketch = several.prune(options), several.sketch(options)
    if "macs" in budget:
        assert (real.cut.kept == sketch.cut.kept).all()
    arrays = [parameters(candidate.model).values() for candidate in (real, sketch)]
    sizes = [sum(np.count_nonzero(a.numpy()) for a in found) for found in arrays]
    # Dead units differ with the weights chosen, and so do the biases that go with them: 20 of 1,689.
    assert abs(sizes[0] - sizes[1]) <= 20


@pytest.mark.parametrize("axis, value", [("ratio", 0.4), ("macs", 0.5)])
def test_a_draft_does_nearly_as_well_and_does_not_change_what_comes_after(saved, axis, value):
    path, _ = saved
    shape = (3, 6, 6)
    x, other = samples(shape, 2000), samples(shape, 200, seed=9)
    method = resolve("default", **{axis: value}, provider="cpu")
    several = Prepared(path, x, [method])
    draft = several.draft(method)
    assert draft.draft and draft.options == method
    error = {
        name: evaluate(made.model, {"x": other}, reference=path, provider="cpu").values["relative_error"]
        for name, made in {
            "draft": draft,
            "sketch": several.sketch(method),
            "full": several.prune(method),
        }.items()
    }
    # it may lose more than the real one by a third of what repairing gains
    assert error["draft"] < error["full"] + (error["sketch"] - error["full"]) / 3
    same(several.prune(method).model, compress(path, x, **{axis: value}, provider="cpu").model)


def test_a_draft_reads_the_samples_that_it_has_use_for(saved):
    path, _ = saved
    method = resolve("default", ratio=0.4, provider="cpu")
    many, few = (Prepared(path, samples((3, 6, 6), count), [method]) for count in (2000, 48))
    # the head sees one row a sample, the convolutions 36 or 9: 40 rows for each of 54 columns are 240 samples
    assert many._fewer(method).count == 240
    assert few._fewer(method) is few.source


def test_where_nothing_is_swept_a_draft_is_the_real_thing(saved):
    path, x = saved
    method = resolve("magnitude", ratio=0.4, provider="cpu")
    several = Prepared(path, x, [method])
    draft = several.draft(method)
    assert not draft.draft
    same(draft.model, several.prune(method).model)
