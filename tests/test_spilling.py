"""Spilled arrays: back as they were, gone with their folder, also when a run fails."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from onnxprune import spilling
from onnxprune.errors import OutputError
from onnxprune.spilling import Folder


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32).reshape(2, 3).T, np.arange(4)])
def test_an_array_comes_back_as_it_was(array):
    folder = Folder("things")
    spilled = folder.put(array)
    found = spilled.array()
    assert isinstance(found, np.memmap) and found.dtype == array.dtype and not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    spilled.drop()
    assert not spilled.path.exists() and spilled.path.parent.exists()


def test_no_room_is_said_with_the_remedy(monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spilling, "mkdtemp", full)
    with pytest.raises(OutputError, match=r"things of 800 bytes .* No space left on device; set TMPDIR"):
        Folder("things").put(np.zeros(100))


def test_a_run_that_fails_leaves_no_files(tmp_path):
    code = """
import os
import numpy as np
from onnxprune.spilling import Folder
folder = Folder("things")
folder.put(np.zeros(100))
print(len(os.listdir(os.environ["TMPDIR"])))
raise RuntimeError
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stdout.strip() == "1"
    assert list(tmp_path.iterdir()) == []
