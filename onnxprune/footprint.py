"""Footprint: what one model costs to load and to hold, measured in a process that does nothing else.

`footprint` starts this module as a program: it reads the inputs, notes the time and its memory, loads the
model, runs it once and prints what was added. Only main memory is counted, not an accelerator's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.session import Array, Provider, Session

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Footprint:
    """Seconds to load a model, and bytes of main memory at most in use to load it and run it once."""

    load_seconds: float
    peak_bytes: int


def footprint(
    model: Path, feeds: Mapping[str, Array], *, provider: Provider = "auto", threads: int = 0
) -> Footprint:
    """Measure `model`, run once on `feeds`, in a fresh process (half a second for its imports).

    The file is in the system's cache if it was read before: loading is then not reading from a disk.

    Raises:
        ModelError: the process failed, with its last words.
    """
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, *feeds.values())
        # -P: a file beside the caller that is called numpy.py is not to be taken for numpy.
        program = [sys.executable, "-P", "-m", __name__]
        given = [str(model), str(inputs), provider, str(threads), *feeds]
        child = subprocess.run([*program, *given], capture_output=True, text=True, env=_environment())
    if child.returncode:
        words = child.stderr.strip().splitlines() or [f"its process ended with {child.returncode}"]
        raise ModelError(f"{model}: memory and load time cannot be measured: {words[-1]}")
    return Footprint(**json.loads(child.stdout))


def _environment() -> dict[str, str]:
    """Ours, with this very package to be found first."""
    home = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}


def _measure(model: str, inputs: str, provider: str, threads: str, *names: str) -> Footprint:
    with np.load(inputs) as arrays:
        feeds = dict(zip(names, arrays.values(), strict=True))
    memory, start = _peak(), time.perf_counter()
    session = Session(Path(model), cast(Provider, provider), threads=int(threads))
    seconds = time.perf_counter() - start
    session.run(feeds)
    return Footprint(seconds, _peak() - memory)


def _peak() -> int:
    """Bytes this process held at most so far.

    Not getrusage where it can be helped: Linux starts a child's ru_maxrss at the size of the parent that
    forked it, and a large parent would hide all that the child does.
    """
    if _STATUS.exists():
        status = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(*sys.argv[1:]))))
