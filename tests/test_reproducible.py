"""The same seed gives the same files, to the byte, in another process; another seed gives others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import sys
import onnxprune
folder, seed = sys.argv[1], int(sys.argv[2])
model, data = "models/lenet_5.onnx", "calibration/lenet_5.npz"
how = {"samples": 100, "seed": seed}
onnxprune.calibrate(model, data, output=f"{folder}/statistics", **how)
for name, options in {
    "weights": {"ratio": 0.2},
    "units": {"units": 0.4, "score": "abs_mrs", "replace": "mean"},
    "both": {"macs": 0.6, "ratio": 0.3, "pack": "fp16"},
    "random": {"ratio": 0.5, "saliency": "random", "surgeon": "none", "allocation": "uniform"},
    "positions": {"ratio": 0.2, "positions": 16},
}.items():
    result = onnxprune.compress(model, data, output=f"{folder}/{name}.onnx", **how, **options)
    open(f"{folder}/{name}.plan", "w").write(result.plan.to_json())
"""


def files(folder: Path, seed: int, hashes: int) -> dict[str, bytes]:
    """What a process of its own writes; `hashes` is in which order its sets are."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": str(hashes), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(seed)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return files(tmp_path_factory.mktemp("first") / "run", 1, 1)


def test_the_same_seed_gives_the_same_files(once, tmp_path):
    again = files(tmp_path / "run", 1, 2)
    assert once.keys() == again.keys() and len(once) == 11
    assert [name for name in once if once[name] != again[name]] == []


def test_another_seed_gives_other_files(once, tmp_path):
    other = files(tmp_path / "run", 2, 1)
    assert [name for name in once if once[name] == other[name]] == []
