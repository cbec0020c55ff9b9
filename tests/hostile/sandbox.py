"""Giving files to the worker, and what becomes of it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

SECONDS = 60  # an example takes milliseconds; machines may be busy
ROOT = Path(__file__).resolve().parent.parent.parent

Given = tuple[str, Path]  # a reader, and the file for it

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


#: A long run goes on behind findings; each is kept once, by the last line of the package that it came from.
FOUND: dict[str, Path] = {}
MINUTES = float(os.environ.get("ONNXPRUNE_FUZZ_MINUTES", "0"))
_FINDINGS = Path(gettempdir()) / f"onnxprune-findings-{os.getpid()}"


_CHECKS = list(HealthCheck)  # none of them: machines may be busy


def explore(
    strategy: st.SearchStrategy[Any], attempt: Callable[[Any], Given], examples: int, share: float
) -> None:
    """Give the worker what `attempt` makes of examples: so many, or for a share of the minutes."""
    sandbox, start = Sandbox(), time.monotonic()
    try:
        for turn in count():  # hypothesis itself would remember all of them

            @seed(turn)
            @settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            @given(strategy)
            def tried(example: Any) -> None:
                _give(sandbox, *attempt(example))

            tried()
            if time.monotonic() - start >= 60 * MINUTES * share:
                return
    finally:
        sandbox.close()


def _give(sandbox: Sandbox, reader: str, path: Path) -> None:
    try:
        sandbox.give(reader, path)
    except AssertionError as error:
        if not MINUTES:
            raise
        lines = [line.strip() for line in str(error).strip().splitlines()]
        finding = " ".join([*[line for line in lines if "/onnxprune/" in line][-1:], *lines[-1:]])
        if finding not in FOUND:
            FOUND[finding] = _FINDINGS / f"{len(FOUND)}{path.suffix}"
            _FINDINGS.mkdir(exist_ok=True)
            shutil.copy(path, FOUND[finding])
