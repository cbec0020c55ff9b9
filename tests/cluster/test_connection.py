"""What a worker gets of a cluster; Ray is played by what it says of its machines."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from cluster.in_process import InProcess
from onnxprune.cli.running import _noting
from onnxprune.cluster import connection
from onnxprune.errors import RuntimeUnavailableError


def machines(*resources, dead=()):
    nodes = [{"Alive": True, "Resources": each} for each in resources]
    nodes += [{"Alive": False, "Resources": each} for each in dead]
    return SimpleNamespace(nodes=lambda: nodes)


@pytest.mark.parametrize(
    ("workers", "provider", "given"),
    [
        (None, "cpu", (2, 8, 0)),  # one a machine
        (None, "auto", (4, 4, 1)),  # one a GPU
        (2, "cuda", (2, 8, 1)),
        (6, "cuda", (6, 2, 0.5)),  # two on each of three GPUs
        (8, "cpu", (8, 2, 0)),
    ],
)
def test_workers_get_equal_shares(workers, provider, given):
    ray = machines({"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0, "GPU": 1.0}, {"GPU": 0}, dead=[{"CPU": 64.0}])
    found = connection._placed(ray, workers, provider)
    assert (found.workers, found.threads, found.gpus) == given


def test_without_a_gpu_cuda_is_refused_and_auto_takes_processors():
    with pytest.raises(RuntimeUnavailableError, match="--provider cuda: the cluster has no GPU"):
        connection._placed(machines({"CPU": 2.0}), 2, "cuda")
    assert connection._placed(machines({"CPU": 2.0}), 2, "auto").gpus == 0


def test_an_address_is_tried_before_ray_is_asked(monkeypatch):
    tried = []

    def refuse(address, seconds):
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(connection.socket, "create_connection", refuse)
    for address, host in {
        "ray://head:10001": "head",
        "10.0.0.1:6379": "10.0.0.1",
        "[::1]:6379": "::1",
    }.items():
        with pytest.raises(RuntimeUnavailableError, match="no Ray cluster answers there"):
            connection._start(InProcess(), address, 2)
        assert tried.pop()[0] == host


def test_what_was_lost_is_said_at_the_end(capsys):
    there = SimpleNamespace(notes=["1 worker lost on the cluster; what they held was gathered again"])
    with _noting(nullcontext(there)):
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err.startswith("warning: 1 worker lost on the cluster")
