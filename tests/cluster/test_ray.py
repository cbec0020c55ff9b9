"""Ray itself, on this machine: its processes gather what this one does, and may be killed."""

import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from tiny import TWINS, samples, twin_model

from cluster.test_losses import Steps, assert_same
from onnxprune import calibrate, cluster, compress
from onnxprune.algebra import cholesky
from onnxprune.cli import main
from onnxprune.cluster import connection
from onnxprune.errors import RuntimeUnavailableError, StatisticsError
from onnxprune.model import load, parameters
from onnxprune.statistics import Gathering, collect
from onnxprune.statistics import load as load_statistics
from onnxprune.statistics.opening import open_calibration


def test_a_cluster_that_is_not_there():  # before there is one: `connected` keeps to that
    pytest.importorskip("ray")
    with pytest.raises(RuntimeUnavailableError, match=r"--ray 127\.0\.0\.1:1: no Ray cluster answers there"):
        with cluster.connected("127.0.0.1:1"):
            pass


@pytest.fixture(scope="module")
def two():
    """A cluster of two workers; it takes seconds to start, so that there is one for all tests."""
    pytest.importorskip("ray")
    with cluster.connected("local", 2, "cpu") as found:
        assert (found.workers, found.threads, found.gpus) == (2, max(1, len(os.sched_getaffinity(0)) // 2), 0)
        yield found
    assert not found.ray.is_initialized()


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """A model and data in files, and the statistics of one process."""
    import onnx_ir as ir

    folder = tmp_path_factory.mktemp("lesson")
    model = twin_model("cnn")
    ir.save(model, folder / "net.onnx")
    np.savez(folder / "data.npz", x=samples(TWINS["cnn"].shape, 90))
    source = open_calibration(loaded := load(folder / "net.onnx"), folder / "data.npz", None, 4, 0)
    return folder, collect(loaded.ir, loaded.sha256, source, Gathering(provider="cpu"))


class Killer(Steps):
    """Kills one of the workers, once, as soon as any has done something."""

    killed = False

    def stage(self, name, total):
        self.name = name
        return self

    def advance(self, steps, note=""):
        if self.name != "statistics":
            return
        super().advance(steps, note)
        if not self.killed:
            # what the killed one held is taken back, so that the sum may be that of the first step again
            self.killed = True
            workers = [child for child in psutil.Process().children(recursive=True) if is_worker(child)]
            os.kill(workers[0].pid, signal.SIGKILL)


def is_worker(process):
    try:
        return process.name().startswith("ray::Worker")
    except psutil.NoSuchProcess:
        return False


def test_processes_gather_what_one_does_even_if_one_is_killed(two, lesson):
    folder, want = lesson
    progress = Killer()
    given = {"batch_size": 4, "provider": "cpu", "progress": progress}
    assert_same(calibrate(folder / "net.onnx", folder / "data.npz", **given), want)
    assert progress.notes[0] == "1 worker lost" and progress.sum == 90


def test_the_command_writes_the_same_statistics(two, lesson, tmp_path, monkeypatch):
    folder, want = lesson
    monkeypatch.chdir(folder)  # relative paths are meant from here, on the workers too
    command = "calibrate net.onnx --data data.npz --batch-size 4 --provider cpu --ray local --workers 1 -o"
    result = CliRunner().invoke(main, [*command.split(), str(tmp_path / "out.stats")])
    assert result.exit_code == 0, result.output
    assert_same(load_statistics(tmp_path / "out.stats"), want)


def test_scores_curves_and_surgeons_of_layers_are_those_made_here(two, lesson):
    folder, want = lesson
    given = {"statistics": want, "surgeon": "paper", "ratio": 0.5, "provider": "cpu"}
    there = compress(folder / "net.onnx", folder / "data.npz", **given)
    token = connection._CURRENT.set(None)
    here = compress(folder / "net.onnx", folder / "data.npz", **given)
    connection._CURRENT.reset(token)
    for name, kept in here.plan.kept.items():
        np.testing.assert_array_equal(there.plan.kept[name], kept)
    for name, tensor in parameters(here.model).items():
        # inverses in float64, by BLAS on another number of threads
        np.testing.assert_allclose(
            parameters(there.model)[name].numpy(), tensor.numpy(), rtol=1e-6, atol=1e-9
        )


def test_what_goes_wrong_in_a_layer_is_raised_as_it_is(two):
    with pytest.raises(StatisticsError, match="not positive definite"):
        list(cluster.spread(cholesky, [(np.eye(2),), (-np.eye(2),)]))


def test_what_goes_wrong_on_a_worker_is_one_line(two, lesson, tmp_path):
    import onnx_ir as ir

    model = twin_model("cnn")
    for value in model.graph.initializers.values():
        if value.name == "b4":
            value.const_value = ir.Tensor(np.full(6, np.nan, np.float32), name="b4")
    ir.save(model, tmp_path / "net.onnx")
    command = ["calibrate", str(tmp_path / "net.onnx"), "--data", str(lesson[0] / "data.npz")]
    result = CliRunner().invoke(main, [*command, "--provider", "cpu", "--ray", "local", "--workers", "1"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: layer '")
    assert "has NaN or Inf in its statistics" in result.stderr and "Traceback" not in result.output


def test_a_cluster_without_a_gpu_is_refused_where_one_is_asked_for(two):
    if two.ray.cluster_resources().get("GPU"):
        pytest.skip("there is one")
    with pytest.raises(RuntimeUnavailableError, match="--provider cuda: the cluster has no GPU"):
        with cluster.connected("local", 2, "cuda"):
            pass


def test_nothing_imports_ray_unless_asked():
    program = (
        "import sys, onnxprune.pipeline, onnxprune.cli.commands.calibrate; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_ray_it_is_said_how_to_install_it(lesson, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(main, ["calibrate", str(lesson[0] / "net.onnx"), "--ray", "local"])
    assert result.exit_code == 1
    assert (
        result.stderr
        == "error: --ray: ray is not installed; install it with `pip install 'onnxprune[ray]'`\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers 2 goes with --ray"),
        (["--ray", "local", "--workers", "0"], "--workers 0: must be 1 or more"),
    ],
)
def test_wrong_use(lesson, options, message):
    result = CliRunner().invoke(main, ["calibrate", str(lesson[0] / "net.onnx"), *options])
    assert result.exit_code == 2 and message in result.stderr
