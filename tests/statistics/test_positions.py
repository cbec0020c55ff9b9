"""Statistics of some positions only: unbiased, recorded, and never mixed with others."""

import sys

import numpy as np
import pytest
import safetensors.numpy
from tiny import TWINS, Twin, data_for, relative, samples, twin_model
from units.nets import parsed

from onnxprune.errors import StatisticsError
from onnxprune.layers import find_layers
from onnxprune.statistics import Gathering, Gram, Samples, collect, load, merge, save

FLOAT32 = 2e-6  # sums of some hundred float32 products, in another order


def over_all_starts(monkeypatch, model, x, labels, positions):
    """Statistics of one batch again and again, from every start: their expectation, and how many starts."""
    starts = int(np.lcm.reduce([layer.uses[0].positions for layer in find_layers(model.graph)]))
    module = sys.modules["onnxprune.statistics.collect"]  # the package has a function of this name
    monkeypatch.setattr(module, "_start", lambda seed, number: np.asarray(number))
    data = {"x": np.concatenate([x] * starts), "labels": np.concatenate([labels] * starts)}
    how = Gathering(labels=True, positions=positions)
    return collect(model, "", data_for(model, data, len(x)), how), starts


WIDE = Twin(
    """net (float[n,5,4,4] x) => (float[n,3] y) {
        [wide] h = Conv<pads=[1,1,1,1]>(x, k, b)
        a = GlobalAveragePool(h)
        y = Flatten(a)
    }""",
    {"k": (3, 5, 3, 3), "b": (3,)},
    (5, 4, 4),
    None,
    1,
)


@pytest.mark.parametrize(
    "twin, count, positions", [(TWINS["cnn"], 6, 3), (TWINS["tokens"], 6, 2), (WIDE, 6, 5), (WIDE, 2, 1)]
)
def test_over_all_starts_the_factors_are_those_of_all_positions(monkeypatch, twin, count, positions):
    extra = {"axes": np.array([1], np.int64)} if twin is TWINS["tokens"] else {}
    model, x = parsed(twin.text, twin.weights, **extra), samples(twin.shape, count)
    labels = np.arange(count) % 3
    whole = collect(model, "", data_for(model, {"x": x, "labels": labels}, count), Gathering(labels=True))
    drawn, starts = over_all_starts(monkeypatch, model, x, labels, positions)
    assert starts > 1
    for name, known in whole.layers.items():
        found = drawn.layers[name]
        assert isinstance(found.activations, Samples if (twin, count) == (WIDE, 2) else Gram)
        assert relative(found.activations.mean(), known.activations.mean()) < FLOAT32
        assert relative(found.gradients.mean(), known.gradients.mean()) < FLOAT32
        assert relative(found.mean(), known.mean()) < 10 * FLOAT32  # terms of either sign cancel
        assert (found.rows, found.positions) == (starts * known.rows, known.positions)


def test_the_factor_counts_its_rows_whatever_the_start():
    """The 1 of ā has mean 1 in every run, so that no covariance gets a negative eigenvalue."""
    model, x = twin_model("cnn"), samples((3, 9, 8), 5)
    for seed in range(3):
        how = Gathering(gradients=False, positions=7, seed=seed)
        for layer in collect(model, "", data_for(model, x), how).layers.values():
            mean = layer.activations.mean()
            np.testing.assert_allclose(mean[:, -1, -1], 1, rtol=1e-6)
            assert np.linalg.eigvalsh(mean).min() > -1e-6 * np.abs(mean).max()  # float32 sums


def test_positions_come_from_the_seed_and_leave_the_noise_alone():
    model, x = twin_model("cnn"), samples((3, 9, 8), 9)
    one, same, other = (
        collect(model, "", data_for(model, x), Gathering(seed=seed, positions=4)).layers for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one["strided"].activations.mean(), same["strided"].activations.mean())
    assert not np.allclose(one["strided"].activations.mean(), other["strided"].activations.mean())
    whole = collect(model, "", data_for(model, x), Gathering(seed=3)).layers
    for name, layer in whole.items():  # gradients are those of all positions, with the same sampled labels
        np.testing.assert_allclose(one[name].gradients.total, layer.gradients.total, rtol=1e-6)


def test_as_many_as_there_are_are_all():
    model, x = twin_model("cnn"), samples((3, 9, 8), 9)
    some = collect(model, "", data_for(model, x), Gathering(positions=10_000)).layers
    whole = collect(model, "", data_for(model, x), Gathering()).layers
    for name, layer in whole.items():
        np.testing.assert_array_equal(some[name].activations.mean(), layer.activations.mean())
        np.testing.assert_array_equal(some[name].gradients.mean(), layer.gradients.mean())


@pytest.mark.parametrize(
    "text, weights, reason",
    [
        (
            "net (float[n,t,4] x) => (float[n,t,3] y) { [one] y = MatMul(x, w) }",
            {"w": (4, 3)},
            "not known before",
        ),
        (
            """net (float[n,2,6,6] x) => (float[n,2,2,2] y) {
                [one] h = Conv(x, w) [two] y = Conv(h, w)
            }""",
            {"w": (2, 2, 3, 3)},
            "inputs of different size",
        ),
    ],
)
def test_positions_that_cannot_be_drawn_are_refused(text, weights, reason):
    model = parsed(text, weights)
    shape = (5, 4) if "n,t,4" in text else (2, 6, 6)
    with pytest.raises(StatisticsError, match=rf"layer 'one' .*{reason}.*leave out --positions"):
        collect(model, "", data_for(model, samples(shape, 3)), Gathering(positions=2))


def test_files_keep_the_number_and_parts_of_another_are_refused(tmp_path):
    model, x = twin_model("cnn"), samples((3, 9, 8), 6)
    parts = [collect(model, "", data_for(model, x), Gathering(positions=number)) for number in (4, 5, None)]
    save(parts[0], tmp_path / "s")
    assert load(tmp_path / "s").positions == 4
    assert merge([parts[0], parts[0]]).positions == 4
    for one, other in ((0, 1), (0, 2), (2, 1)):
        with pytest.raises(StatisticsError, match=r"positions.*cannot be merged.*same --positions"):
            merge([parts[one], parts[other]])


def test_a_file_of_before_is_one_of_all_positions(tmp_path):
    model = twin_model("mlp")
    save(collect(model, "", data_for(model, samples((7,), 12))), tmp_path / "s")
    with safetensors.safe_open(tmp_path / "s", "numpy") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    meta["statistics"] = meta["statistics"].replace('"positions": null, ', "")
    assert "positions" not in meta["statistics"]
    safetensors.numpy.save_file(tensors, tmp_path / "old", meta)
    assert load(tmp_path / "old").positions is None
