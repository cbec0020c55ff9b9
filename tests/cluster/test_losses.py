"""Whoever is lost and whenever, the statistics are those of one process; Ray is played by this process."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from tiny import TWINS, data_for, relative, samples, twin_model

from cluster.in_process import InProcess
from onnxprune.cluster import Cluster, collect_on
from onnxprune.cluster.worker import Worker
from onnxprune.errors import DataError, RuntimeUnavailableError, StatisticsError
from onnxprune.statistics import collect

# Sums of a few dozen terms in float64, in another order.
ROUNDING = 1e-14


@pytest.fixture(scope="module")
def lesson():
    model = twin_model("mlp")
    data = data_for(model, {"x": samples(TWINS["mlp"].shape, 62)})
    return model, data, collect(model, "hash", data)


class Steps:
    """Progress that adds up, and keeps what is said."""

    def __init__(self):
        self.sum, self.notes = 0, []

    def stage(self, name, total):
        return self

    def __enter__(self):
        return self.advance

    def __exit__(self, *problem):
        pass

    def advance(self, steps, note=""):
        self.sum += steps
        self.notes += [note] * bool(note)


def gathered(lesson, ray, workers, progress=None):
    model, data, _ = lesson
    there = Cluster(ray, workers, 1)
    found = collect_on(there, model, "hash", data, progress=progress)
    said = [f"{note} on the cluster; what they held was gathered again" for note in lost(progress)[-1:]]
    assert progress is None or there.notes == said
    return found


def lost(progress):
    return [note for note in progress.notes if note.endswith("lost")] if progress is not None else []


def assert_same(found, want):
    assert (found.samples, found.sha256) == (want.samples, want.sha256)
    for name, known in want.layers.items():
        got = found.layers[name]
        assert (got.rows, got.samples) == (known.rows, known.samples)
        assert relative(got.activations.mean(), known.activations.mean()) < ROUNDING
        assert relative(got.gradients.mean(), known.gradients.mean()) < ROUNDING


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
def test_any_number_of_workers_gathers_the_same(lesson, workers):
    ray, progress = InProcess(), Steps()
    assert_same(gathered(lesson, ray, workers, progress), lesson[2])
    assert progress.sum == 62 and not any(actor.alive for actor in ray.actors)
    calls = Counter(method for _, method in ray.calls)
    assert calls["take_in"] == calls["partial"] == workers - 1 and calls["statistics"] == 1


@pytest.mark.parametrize("method", ["start", "gather", "partial", "take_in", "statistics"])
@pytest.mark.parametrize("actor", range(4))
def test_one_worker_lost_at_any_point(lesson, actor, method):
    ray, progress = InProcess(lambda *call: call == (actor, method, 0)), Steps()
    assert_same(gathered(lesson, ray, 4, progress), lesson[2])
    if (actor, method) in ray.calls:
        assert "1 worker lost" in progress.notes and len(ray.actors) == 5
    assert progress.sum == 62


def test_a_worker_lost_late_loses_all_that_it_held(lesson):
    ray = InProcess(lambda *call: call == (0, "gather", 3))
    assert_same(gathered(lesson, ray, 1), lesson[2])
    assert ray.calls.count((1, "gather")) == 8  # all shards once more


def test_two_lost_at_once(lesson):
    ray = InProcess(lambda *call: call in {(0, "partial", 0), (1, "take_in", 0), (2, "gather", 1)})
    progress = Steps()
    assert_same(gathered(lesson, ray, 4, progress), lesson[2])
    assert "3 workers lost" in progress.notes


def test_batches_that_kill_whoever_takes_them_end_the_run(lesson):
    ray = InProcess(lambda actor, method, time: method == "gather" and time == 0)
    with pytest.raises(
        RuntimeUnavailableError,
        match=r"3 workers were lost at batches 0 to 1 \(Out of memory\); .*--batch-size",
    ):
        gathered(lesson, ray, 1)
    assert len(ray.actors) == 3 and not any(actor.alive for actor in ray.actors)


def test_workers_that_cannot_start_end_the_run(lesson):
    ray = InProcess(lambda actor, method, time: method == "start")
    with pytest.raises(RuntimeUnavailableError, match=r"lost starting \(.*install the same onnxprune"):
        gathered(lesson, ray, 2)


def test_another_version_on_a_worker_is_refused(lesson, monkeypatch):
    monkeypatch.setattr("onnxprune.cluster.worker.version", lambda package: "0.0.1")
    with pytest.raises(RuntimeUnavailableError, match=r"a worker has onnxprune 0\.0\.1, this is"):
        gathered(lesson, InProcess(), 2)


def test_nobody_is_waited_for_forever(lesson, monkeypatch):
    ray = InProcess()
    monkeypatch.setattr(ray, "wait", lambda references, timeout: ([], references), raising=False)
    ray.available_resources = dict
    ray.cluster_resources = lambda: {"CPU": 2.0}
    with pytest.raises(
        RuntimeUnavailableError, match=r"no worker has started .*0 of the cluster's 2 processors"
    ):
        gathered(lesson, ray, 2)


def test_an_error_of_the_work_is_raised_as_it_is(lesson):
    model, data, _ = lesson
    spoiled = model.clone()
    for value in spoiled.graph.initializers.values():
        if value.name == "b1":
            value.const_value = ir.Tensor(np.full(6, np.nan, np.float32), name="b1")
    ray = InProcess()
    with pytest.raises(StatisticsError, match="has NaN or Inf in its statistics"):
        collect_on(Cluster(ray, 2, 1), spoiled, "hash", data)
    assert not any(actor.alive for actor in ray.actors)


def test_a_file_that_a_worker_does_not_find_is_named(lesson, tmp_path):
    model, _, _ = lesson
    path = tmp_path / "x.npy"
    np.save(path, samples((7,), 8))
    data = data_for(model, path)
    worker = Worker.__new__(Worker)
    worker._data = data
    path.unlink()
    with pytest.raises(DataError, match=r"x\.npy: No such file.* every machine of the cluster"):
        worker.gather(range(1))
