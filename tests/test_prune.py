"""Pruning: exact counts for every recipe and saliency, surgeons at work, no weight left on a dead unit."""

import numpy as np
import pytest
from sweep.test_walk import error, net
from tiny import data_for, samples

from onnxprune.budget import make_budget, select
from onnxprune.layers import find_layers
from onnxprune.model import parameters
from onnxprune.options import RECIPES, resolve
from onnxprune.passes.dead_units import dead_mask, remove_dead_units
from onnxprune.progress import Silent
from onnxprune.prune import prune
from onnxprune.saliency import SALIENCIES, normalised, saliency
from onnxprune.statistics import Gathering, collect
from onnxprune.task import Task


def task_for(name, recipe="default", count=64, seed=0, **options):
    model, shape = net(name, seed)
    options = resolve(recipe, **options)
    data = data_for(model, samples(shape, count), 16)
    how = Gathering(average=options.average, provider="cpu")
    layers, _ = select(find_layers(model.graph).layers, options, {})
    budget = make_budget(model, layers, options, biases_change=options.surgeon != "none")

    def gather(graph):
        return collect(graph, "", data, how)

    return Task(model, data, gather(model), budget, options, gather, Silent())


def nonzero(model):
    return sum(int(np.count_nonzero(tensor.numpy())) for tensor in parameters(model).values())


def check_masks(pruned):
    for layer in find_layers(pruned.model.graph):
        if layer.name in pruned.kept:
            assert (layer.read()[0][~pruned.kept[layer.name]] == 0).all()


@pytest.mark.parametrize("name", ["residual", "tokens", "shared"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_keeps_exactly_the_ratio(recipe, name):
    """Before dead units go."""
    task = task_for(name, recipe, ratio=0.4, regrow=False)
    pruned = prune(task)
    check_masks(pruned)
    assert sum(int(mask.sum()) for mask in pruned.kept.values()) == task.budget.weights
    assert nonzero(pruned.model) == task.budget.target == int(0.4 * task.budget.total)


@pytest.mark.parametrize("surgeon", ["none", "sweep"])
@pytest.mark.parametrize("name", SALIENCIES)
def test_every_saliency_keeps_exactly_the_ratio(name, surgeon):
    task = task_for(
        "residual", saliency=name, surgeon=surgeon, allocation="global", steps=2, ratio=0.35, regrow=False
    )
    pruned = prune(task)
    check_masks(pruned)
    assert nonzero(pruned.model) == int(0.35 * task.budget.total)


@pytest.mark.parametrize("allocation", ["global", "uniform", "balanced"])
@pytest.mark.parametrize("surgeon", ["none", "paper", "joint", "sweep"])
def test_every_allocation_goes_with_every_surgeon(allocation, surgeon):
    task = task_for("tokens", surgeon=surgeon, allocation=allocation, steps=2, ratio=0.5, regrow=False)
    pruned = prune(task)
    check_masks(pruned)
    assert nonzero(pruned.model) == int(0.5 * task.budget.total)
    if allocation == "uniform":
        shares = [mask.mean() for mask in pruned.kept.values()]
        assert max(shares) - min(shares) < 0.05  # whole numbers of weights in layers of 18 and more


def test_the_paper_ranks_all_layers_together_and_takes_the_best():
    task = task_for("residual", "mlprune", ratio=0.3)
    pruned = prune(task)
    kept, cut = [], []
    for layer in find_layers(task.dense.graph):
        score = saliency(
            "mlprune", layer.read()[0], task.statistics.layers[layer.name], task.options.damping, None
        )
        score = normalised(score)
        kept.append(score[pruned.kept[layer.name]])
        cut.append(score[~pruned.kept[layer.name]])
    assert np.concatenate(kept).min() >= np.concatenate(cut).max()


@pytest.mark.parametrize("surgeon", ["none", "joint", "sweep"])
def test_floors_are_kept(surgeon):
    floors = {"stem": 0.9, "head": 0.6}
    task = task_for("residual", surgeon=surgeon, allocation="global", ratio=0.35, floors=floors, regrow=False)
    pruned = prune(task)
    for name, floor in floors.items():
        assert pruned.kept[name].sum() >= int(np.ceil(floor * pruned.kept[name].size))
    assert nonzero(pruned.model) == int(0.35 * task.budget.total)


@pytest.mark.parametrize("surgeon", ["none", "paper", "joint", "sweep"])
def test_patterns_hold_in_every_layer(surgeon):
    pruned = prune(task_for("residual", surgeon=surgeon, allocation="global", pattern="1:2", ratio=None))
    check_masks(pruned)
    for layer in find_layers(pruned.model.graph):
        mask = pruned.kept[layer.name].reshape(layer.groups, layer.d_out, -1, layer.kernel)
        whole = mask.shape[2] // 2 * 2
        assert (mask[:, :, :whole].reshape(layer.groups, layer.d_out, -1, 2, layer.kernel).sum(3) == 1).all()


def test_importances_are_shares():
    pruned = prune(task_for("residual", "mlprune", ratio=0.4))
    assert set(pruned.importance) == set(pruned.kept) and sum(pruned.importance.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["residual", "tokens"])
def test_the_surgeons_help_on_the_whole_network(name):
    """Output error on the calibration data, mean of two networks: sweep < joint < none."""
    errors = {}
    for surgeon in ("none", "joint", "sweep"):
        found = []
        for seed in range(2):
            task = task_for(
                name, surgeon=surgeon, allocation="uniform", steps=2, ratio=0.55, seed=seed, regrow=False
            )
            found.append(error(task.dense, prune(task).model, task.data))
        errors[surgeon] = np.mean(found)
    assert errors["sweep"] < errors["joint"] < errors["none"]


# -- regrowth
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.15, 0.22])
@pytest.mark.parametrize("recipe", ["default", "magnitude", "wanda"])
@pytest.mark.parametrize("name", ["residual", "concat", "transposed"])
def test_regrowth_leaves_no_dead_unit_and_the_exact_count(recipe, name, ratio):
    task = task_for(name, recipe, ratio=ratio)
    pruned = prune(task)
    check_masks(pruned)
    masks = {
        layer.weight.name: layer.tensor(pruned.kept[layer.name]) != 0
        for layer in find_layers(pruned.model.graph)
    }
    dead = dead_mask(pruned.model, masks)
    assert not any((dead[name] & masks[name]).any() for name in masks)
    remove_dead_units(pruned.model)
    assert nonzero(pruned.model) == int(ratio * task.budget.total)


def test_without_regrowth_dead_units_cost_what_they_hold():
    task = task_for("residual", "mlprune", ratio=0.12)
    pruned = prune(task)
    remove_dead_units(pruned.model)
    assert nonzero(pruned.model) < int(0.12 * task.budget.total)


def test_the_dense_model_stays_as_it_was():
    task = task_for("residual", ratio=0.3)
    before = {name: tensor.numpy().copy() for name, tensor in parameters(task.dense).items()}
    prune(task)
    for name, tensor in parameters(task.dense).items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def test_weights_that_are_zero_already_stay_zero():
    task = task_for("residual", ratio=0.9, steps=1)
    (layer,) = [layer for layer in task.budget.layers if layer.name == "conv1"]
    matrix, bias = layer.read()
    gone = np.random.default_rng(0).random(matrix.shape) < 0.5
    layer.write(np.where(gone, 0, matrix), bias)
    budget = make_budget(task.dense, task.budget.layers, task.options, biases_change=True)
    pruned = prune(
        Task(task.dense, task.data, task.statistics, budget, task.options, task.gather, task.progress)
    )
    assert not (pruned.kept["conv1"] & gone).any()
    assert nonzero(pruned.model) == budget.weights + sum(
        tensor.size for name, tensor in parameters(task.dense).items() if tensor.numpy().ndim == 1
    )
