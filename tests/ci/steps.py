"""The steps of action.yml, run as GitHub's runner would: its expressions, its shell, its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
_HERE = "Install onnxprune"  # what runs is the checkout


@dataclass
class Run:
    """What came of it: the exit code of the last step that ran, its name, and what the steps left behind."""

    code: int = 0
    step: str = ""
    log: str = ""
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)


def program(folder: Path, script: str = f'exec "{sys.executable}" -m onnxprune "$@"') -> dict[str, str]:
    """An environment in which `onnxprune` is this checkout, or another script."""
    shim = folder / "bin" / "onnxprune"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f"#!/usr/bin/env bash\n{script}\n")
    shim.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return kept | {
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_action(work: Path, environment: dict[str, str], **inputs: str) -> Run:
    """Run the shell steps in the folder `work`, up to the first that fails; inputs have `_` for `-`.

    What only GitHub can do (`uses:`) and the installation are left out.
    """
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    assert given.keys() <= ACTION["inputs"].keys()
    known = {
        f"inputs.{name}": given.get(name, entry.get("default", ""))
        for name, entry in ACTION["inputs"].items()
    }
    files = {"GITHUB_STEP_SUMMARY": work.parent / "summary.md", "GITHUB_OUTPUT": work.parent / "output"}
    found = Run()
    for step in STEPS:
        if "run" not in step or step["name"] == _HERE:
            continue
        for file in files.values():
            file.touch()
        own = {name: evaluate(text, known) for name, text in step["env"].items()}
        script = work.parent / "script.sh"
        script.write_text(step["run"])
        child = subprocess.run(
            # GitHub's `shell: bash`
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=work,
            env={**environment, **own, **{name: str(path) for name, path in files.items()}},
            capture_output=True,
            text=True,
        )
        found.code, found.step = child.returncode, step["name"]
        found.log += child.stdout + child.stderr
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        written = dict(line.split("=", 1) for line in lines)
        known |= {f"steps.{step.get('id')}.outputs.{name}": value for name, value in written.items()}
        files["GITHUB_OUTPUT"].unlink()
        if child.returncode:
            break
    found.summary = files["GITHUB_STEP_SUMMARY"].read_text()
    found.outputs = {name: evaluate(entry["value"], known) for name, entry in ACTION["outputs"].items()}
    return found


def evaluate(text: str, known: dict[str, str]) -> str:
    """A text with its expressions replaced: names, and `a || b` of them."""

    def value(found: re.Match[str]) -> str:
        names = [name.strip() for name in found[1].split("||")]
        return next((known[name] for name in names if known[name]), "")

    return _EXPRESSION.sub(value, text)
