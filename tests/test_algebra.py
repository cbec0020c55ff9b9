"""What a GPU does with large matrices is what the CPU does; torch's own CPU stands for it here.

`tests/test_cuda.py` has the same with a real one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sweep.test_walk import net
from tiny import samples

from onnxprune import algebra, compress, session
from onnxprune.algebra import factored, on, times
from onnxprune.errors import StatisticsError
from onnxprune.model import load

torch = pytest.importorskip("torch")

ROUNDING = 1e-12  # of float64, in another order, of well-conditioned matrices


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device with room for everything, onto which every matrix goes."""
    monkeypatch.setattr(algebra, "_LARGE", 1)
    monkeypatch.setattr(algebra, "_found", lambda provider: "cpu")
    monkeypatch.setattr(algebra, "_free", lambda device: 1 << 40)
    with on("cuda"):
        yield


def definite(size: int) -> np.ndarray:
    rows = np.random.default_rng(size).standard_normal((2 * size, size))
    return rows.T @ rows / size + np.eye(size)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("size", [1, 2, 37])
def test_factors_there_are_those_of_numpy(size: int) -> None:
    matrix = definite(size)
    rows = np.random.default_rng(0).standard_normal((3, size))
    found = factored(matrix.copy())
    assert isinstance(found, algebra._There)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(found.inverse_diagonal(), np.diag(inverse), rtol=ROUNDING)
    np.testing.assert_allclose(found.solve(rows), rows @ inverse, rtol=1e-10, atol=ROUNDING)


@pytest.mark.parametrize("one_thread", [1, 1000])
@pytest.mark.parametrize("size", [2, 129, 300])  # a triangle is inverted as a whole, in two parts, in more
def test_factors_here_are_those_of_numpy_small_or_large(
    size: int, one_thread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(algebra, "ONE_THREAD", one_thread)
    matrix = definite(size)
    rows = np.random.default_rng(0).standard_normal((3, size))
    found = factored(matrix.copy())
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(found.inverse_diagonal(), np.diag(inverse), rtol=ROUNDING)
    np.testing.assert_allclose(found.solve(rows), rows @ inverse, rtol=1e-10, atol=ROUNDING)
    with pytest.raises(StatisticsError, match="not positive definite; raise --damping"):
        factored(-matrix)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_there_keep_their_dtype(dtype: type) -> None:
    rng = np.random.default_rng(0)
    matrices, rows = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 5, 5), (2, 3, 5)))
    product = times(matrices)(rows)
    assert product.dtype == dtype
    some = np.array([0, 3, 4])
    own = times(matrices).within(some)(rows[:, :, some])
    np.testing.assert_allclose(own, rows[:, :, some] @ matrices[:, some[:, None], some], atol=1e-5)
    product += 1  # it is the caller's own
    np.testing.assert_allclose(product - 1, rows @ matrices, atol=1e-5 if dtype is np.float32 else ROUNDING)


@pytest.mark.usefixtures("there")
def test_a_matrix_that_is_not_definite_is_the_same_error_there() -> None:
    with pytest.raises(StatisticsError, match="not positive definite; raise --damping"):
        factored(-np.eye(3))


@pytest.mark.usefixtures("there")
def test_what_is_small_or_has_no_room_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = definite(4)
    monkeypatch.setattr(algebra, "_free", lambda device: 4 * matrix.nbytes - 1)
    assert isinstance(factored(matrix.copy()), algebra._Here)
    monkeypatch.setattr(algebra, "_free", lambda device: 4 * matrix.nbytes)
    assert isinstance(factored(matrix.copy()), algebra._There)
    monkeypatch.setattr(algebra, "_LARGE", 5)
    assert isinstance(factored(matrix.copy()), algebra._Here)


def test_nothing_leaves_the_cpu_where_that_was_asked_for_or_nobody_has_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(algebra, "_LARGE", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(session, "providers", lambda choice="auto": [session._CPU])
    with on("cpu"):
        assert isinstance(factored(definite(3)), algebra._Here)
    monkeypatch.setattr(session, "providers", lambda choice="auto": [session._CUDA])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with on("auto"):
        assert isinstance(factored(definite(3)), algebra._Here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(algebra, "_free", lambda device: 0)
    with on("auto"):
        assert algebra._device.get() == "cuda"
    assert algebra._device.get() is None


@pytest.mark.parametrize("recipe", ["default", "mlprune"])
def test_a_network_pruned_there_is_the_one_pruned_here(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, shape = net("residual")
    data, used = samples(shape, 48), []
    given = {"ratio": 0.4, "recipe": recipe, "provider": "cpu", "steps": 1}
    here = compress(load(model), data, **given)
    monkeypatch.setattr(algebra, "_LARGE", 1)
    monkeypatch.setattr(algebra, "_found", lambda provider: "cpu")
    monkeypatch.setattr(algebra, "_free", lambda device: used.append(device) or 1 << 40)
    there = compress(load(model), data, **given)
    assert used
    changed = sum(int((there.plan.kept[name] != kept).sum()) for name, kept in here.plan.kept.items())
    everything = sum(kept.size for kept in here.plan.kept.values())
    # the sweep chooses after steps in float32, whose rounding may turn a close choice; nothing else may
    assert changed <= (0.02 * everything if recipe == "default" else 0)
    change = [result.report.metric.after for result in (here, there)]
    assert change[1] == pytest.approx(change[0], abs=0.05)
