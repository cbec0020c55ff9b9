"""Reading a file never runs code: nothing in the package unpickles, and numpy is never allowed to."""

import re
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from hostile.graphs import message
from onnxprune.data import open_data
from onnxprune.errors import DataError

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("onnxprune", "benchmarks", "models", "docs")
CODE = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
FORBIDDEN = (
    r"^\s*(import|from)\s+_?c?(pickle|dill|cloudpickle|shelve|marshal|joblib)\b",
    r"allow_pickle\s*=\s*True",
    r"torch\.load\((?!.*weights_only\s*=\s*True)",
    r"yaml\.(unsafe_|full_)?load\(",
    r"(?<![.\w])(eval|exec)\(",
)


def runs_code(text: str) -> list[str]:
    return [line for line in text.splitlines() if any(re.search(sign, line) for sign in FORBIDDEN)]


def test_nothing_in_the_package_does():
    found = {str(path): lines for path in CODE if (lines := runs_code(path.read_text(encoding="utf-8")))}
    assert CODE and not found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "    from _pickle import loads",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "exec(text)",
    ],
)
def test_it_would_be_seen(line):
    assert runs_code(line)


class Dangerous:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_in_arrays_stay_asleep(tmp_path, suffix):
    (tmp_path / "model.onnx").write_bytes(message("mlp").SerializeToString())
    array = np.array([[Dangerous(tmp_path / "run")] * 6] * 4, dtype=object)
    path = tmp_path / f"objects{suffix}"
    np.save(path, array, allow_pickle=True) if suffix == ".npy" else np.savez(path, x=array)
    with pytest.raises(DataError, match="holds Python objects, which are never unpickled"):
        open_data(path, onnxprune.load(tmp_path / "model.onnx").graph.inputs)
    assert not (tmp_path / "run").exists()
    np.load(path, allow_pickle=True)["x"] if suffix == ".npz" else np.load(path, allow_pickle=True)
    assert (tmp_path / "run").exists(), "it was dangerous"
