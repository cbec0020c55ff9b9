"""Statistics inside a limit of memory: the same sums in several passes, few samples at once, and in files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TWINS, data_for, differ, reshaped_by_batches_of, samples, twin_model

from onnxprune import spilling
from onnxprune.errors import MemoryBudgetError
from onnxprune.layers import find_layers
from onnxprune.statistics import Gathering, Samples, collect, fitting, gather, shelf
from onnxprune.statistics.shelf import Shelf

collecting = sys.modules[Gathering.__module__]  # the package has a function of the module's name
FLOAT32 = 1e-5  # sums of some hundred float32 products, cut up elsewhere


@pytest.fixture
def _nothing_resident(monkeypatch):
    """Limits of tiny networks are then about the networks."""
    monkeypatch.setattr(fitting, "resident", lambda: 0)
    monkeypatch.setattr(fitting, "_COPIES", 0)
    monkeypatch.setattr(fitting, "_BLAS", 0)
    monkeypatch.setattr(fitting, "_SESSION", 0)


def limited(name, memory, count=30, batch=8, **how):
    model, x = twin_model(name), samples(TWINS[name].shape, count)
    data = data_for(model, x, batch)
    whole = collect(model, "sha", data, Gathering(seed=5, **how))
    return whole, gather(model, "sha", data, Gathering(seed=5, memory=memory, **how))


@pytest.mark.usefixtures("_nothing_resident")
@pytest.mark.parametrize("name", TWINS)
def test_passes_give_what_one_pass_gives(name, monkeypatch):
    monkeypatch.setattr(fitting, "_values", lambda model, data, how: (lambda run: 0, [data.batch_size]))
    whole, _ = limited(name, 1 << 40)
    model = twin_model(name)
    needs = [
        fitting._need(layer, data_for(model, samples(TWINS[name].shape, 30), 8), Gathering())
        for layer in fitting.find_layers(model.graph)
    ]
    least = max(fitting._taken([need]) for need in needs)
    _, found = limited(name, least)
    assert found.plan.spilled and found.plan.run == 8 and found.plan.predicted <= least
    assert len(found.plan.parts) > 1 and sum(map(len, found.plan.parts)) == len(needs)
    assert differ(whole, found) == 0  # the same operations on the same numbers


@pytest.mark.usefixtures("_nothing_resident")
@pytest.mark.parametrize("loss", ["cross-entropy", "gaussian"])
@pytest.mark.parametrize("name", TWINS)
def test_fewer_samples_at_once_see_the_noise_of_their_batch(name, loss, monkeypatch):
    """9 samples a batch, 4, 4 and 1 at once: the last batch has 3, the noise is that of 9."""
    monkeypatch.setattr(fitting, "_values", lambda model, data, how: (lambda run: 10**6 * run, [9, 4, 1]))
    whole, found = limited(name, 5 * 10**6, batch=9, loss=loss)
    assert found.plan.run == 4 and len(found.plan.parts) == 1
    assert differ(whole, found) < FLOAT32


@pytest.mark.parametrize("name", TWINS)
def test_without_a_limit_as_many_run_at_once_as_a_cache_holds(name, monkeypatch):
    """A cache of nothing and at least three samples: portions of three, and the same statistics."""
    model, x = twin_model(name), samples(TWINS[name].shape, 30)
    data, how = data_for(model, x, 8), Gathering(seed=5, provider="cpu")
    layers = find_layers(model.graph).layers
    assert (how.portion(layers, data) or 8) >= 8  # these networks are small
    whole = collect(model, "sha", data, how)
    monkeypatch.setattr(collecting, "_FEWEST", 3)
    monkeypatch.setattr(collecting, "_CACHE", 0)
    assert how.portion(layers, data) == 3
    assert differ(whole, collect(model, "sha", data, how)) < FLOAT32


def test_batches_stay_whole_where_their_size_is_written_into_a_node(monkeypatch):
    """The input leaves the batch open, a Reshape does not: 8 samples at once or none."""
    model = reshaped_by_batches_of(8)
    data = data_for(model, samples((6,), 16), 8)
    whole = collect(model, "sha", data, Gathering(provider="cpu"))
    monkeypatch.setattr(collecting, "_FEWEST", 1)
    monkeypatch.setattr(collecting, "_CACHE", 0)
    assert differ(whole, collect(model, "sha", data, Gathering(provider="cpu"))) < FLOAT32


@pytest.mark.usefixtures("_nothing_resident")
def test_the_limit_decides_how_many_run_at_once():
    model, x = twin_model("cnn"), samples(TWINS["cnn"].shape, 30)
    data = data_for(model, x, 8)
    runs = {}
    for memory in (1 << 40, 200_000, 100_000):
        runs[memory] = gather(model, "", data, Gathering(memory=memory)).plan
    assert runs[1 << 40].run == 8 and not runs[1 << 40].spilled
    assert all(plan.predicted <= memory for memory, plan in runs.items())
    assert runs[100_000].run < runs[200_000].run <= 8


@pytest.mark.usefixtures("_nothing_resident")
def test_an_exponential_average_runs_whole_batches():
    """A batch counts by its mean there: cut up it would be several batches."""
    whole, found = limited("mlp", 1 << 40, average="exponential")
    assert found.plan.run == 8 and differ(whole, found) == 0


@pytest.mark.usefixtures("_nothing_resident")
def test_a_layer_that_does_not_fit_is_named_with_what_it_takes():
    with pytest.raises(MemoryBudgetError, match=r"layer '\w+' \(\w+\) takes [\d,]+ bytes .* --memory 1MiB"):
        limited("mlp", 10)


def test_a_shelf_gives_back_what_was_put_and_its_files_go_with_it(monkeypatch):
    folders = []
    real = spilling.mkdtemp
    monkeypatch.setattr(spilling, "mkdtemp", lambda **given: folders.append(made := real(**given)) or made)
    model = twin_model("mlp")
    for count in (6, 30):  # rows, and grams
        known = collect(model, "", data_for(model, samples((7,), count)), Gathering()).layers
        kept = Shelf()
        for name, layer in known.items():
            kept[name] = layer
        assert list(kept) == list(known) and len(kept) == len(known)
        for name, layer in known.items():
            found = kept[name]
            assert isinstance(found.activations, Samples) == (count == 6)
            np.testing.assert_array_equal(found.activations.mean(), layer.activations.mean())
            np.testing.assert_array_equal(found.gradients.total, layer.gradients.total)
            assert (found.rows, found.samples) == (layer.rows, layer.samples)
        del kept["one"], found
        assert list(kept) == [name for name in known if name != "one"]
        assert len(list(Path(folders[-1]).iterdir())) == 2 * len(kept)
        del kept
        assert not Path(folders[-1]).exists()


def test_only_what_takes_much_memory_goes_on_a_shelf(monkeypatch):
    known = collect(twin_model("mlp"), "", data_for(twin_model("mlp"), samples((7,), 30)), Gathering()).layers
    assert shelf.shelved(known) is known
    totals = {name: layer.activations.total for name, layer in known.items()}
    held = sum(layer.activations.total.nbytes + layer.gradients.total.nbytes for layer in known.values())
    monkeypatch.setattr(shelf, "_MOST", held)
    assert shelf.shelved(known) is known
    monkeypatch.setattr(shelf, "_MOST", held - 1)
    kept = shelf.shelved(known)
    assert not known and list(kept) == list(totals) and shelf.shelved(kept) is kept
    for name, total in totals.items():
        np.testing.assert_array_equal(kept[name].activations.total, total)


# A network whose factors are many times its weights: wide inputs, four outputs each.
_WIDE = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxprune.memory import peak, release, resident
from onnxprune.model import load
from onnxprune.statistics import Gathering, gather
from onnxprune.statistics.opening import open_calibration

LAYERS, WIDTH = 24, 1200
rng = np.random.default_rng(0)
nodes, weights = [], []
for place in range(LAYERS):
    values = rng.standard_normal(WIDTH * 4)
    weights.append(helper.make_tensor(f"w{place}", TensorProto.FLOAT, (WIDTH, 4), values))
    nodes.append(helper.make_node("MatMul", ["x", f"w{place}"], [f"y{place}"], name=f"layer{place}"))
nodes.append(helper.make_node("Concat", [f"y{place}" for place in range(LAYERS)], ["y"], axis=1))
graph = helper.make_graph(
    nodes, "wide",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", WIDTH))],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4 * LAYERS))],
    weights,
)
model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
data = open_calibration(model, rng.standard_normal((1300, WIDTH)).astype(np.float32), None, 32, 0)
release()
before = resident()
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
how = Gathering(memory=before + int(sys.argv[1]) if int(sys.argv[1]) else None, loss="gaussian")
plan = gather(model.ir, model.sha256, data, how).plan
beyond, factors = peak() - before, 8 * LAYERS * (WIDTH + 1) ** 2
print(beyond, factors, *((plan.predicted - before, len(plan.parts)) if plan else (0, 1)))
"""


def wide(limit):
    """Peak, factors, predicted peak: bytes beyond what was there before; passes. In a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", _WIDE, str(limit)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **threads},
    )
    return tuple(map(int, done.stdout.split()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read as Linux tells them")
def test_the_peak_stays_within_the_limit_and_the_prediction():
    limit = 90 << 20
    peak, factors, _, _ = wide(0)
    assert factors > 2.5 * limit and peak > 3 * limit  # without a limit it is far beyond
    peak, _, predicted, passes = wide(limit)
    assert passes > 3 and peak <= predicted <= limit
