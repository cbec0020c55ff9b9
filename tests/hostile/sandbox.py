"""Giving files to the worker, and what becomes of it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SECONDS = 60  # an example takes milliseconds; machines may be busy
ROOT = Path(__file__).resolve().parent.parent.parent

#: What was tried, by reader and outcome.
TRIED: Counter[tuple[str, str]] = Counter()


class Sandbox:
    """A worker that is started anew whenever it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def give(self, reader: str, path: Path) -> str:
        """The sentence that refuses the file, empty if it was read; anything else is an AssertionError."""
        worker = self._worker()
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(f"{reader}\t{path}\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], SECONDS)
        line = worker.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise AssertionError(
                f"{reader}: no answer" if not ready else f"{reader}: ended by {worker.returncode}"
            )
        ((outcome, words),) = json.loads(line).items()
        TRIED[reader, outcome] += 1
        assert outcome != "crashed", words
        assert outcome == "read" or (words and "\n" not in words), f"no sentence: {words!r}"
        return str(words)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _worker(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                "OMP_NUM_THREADS": "1",  # a thread's stack is memory too
                "OPENBLAS_NUM_THREADS": "1",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hostile.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        return self._process


class Budget:
    """The share that one property has of a long run's minutes, if it is one."""

    MINUTES = float(os.environ.get("ONNXPRUNE_FUZZ_MINUTES", "0"))

    def __init__(self, share: float) -> None:
        self._seconds = 60 * self.MINUTES * share
        self._start: float | None = None

    @property
    def spent(self) -> bool:
        """Whether there was any, and it is spent."""
        now = time.monotonic()
        self._start = self._start or now
        return bool(self.MINUTES) and now - self._start > self._seconds
