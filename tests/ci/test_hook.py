"""The pre-commit hook, run by pre-commit itself on a repository of its own; installing it is left out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ci.steps import ROOT, program

[HOOK] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the hook, as a user's configuration has it but for where the program comes from."""
    if shutil.which("git") is None:
        pytest.skip("pre-commit needs git")
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init")
    shutil.copy(ROOT / "models" / "lenet_300_100.onnx", folder / "big model.onnx")
    shutil.copy(ROOT / "models" / "lenet_300_100.onnx", folder / "two.onnx")
    (folder / "notes.txt").write_text("onnx\n" * 500_000)  # large, and no model
    return folder


def hooked(folder: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    hook = {**HOOK, "language": "system", **changes}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git(folder, "add", "-A")
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--color", "never"],
        cwd=folder,
        env={**program(folder.parent), "PRE_COMMIT_HOME": str(folder.parent / "cache")},
        capture_output=True,
        text=True,
    )


def test_models_within_the_default_pass(repository: Path) -> None:
    found = hooked(repository)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.strip().endswith("Passed")


def test_every_model_over_the_limit_is_named(repository: Path) -> None:
    found = hooked(repository, args=["--max-bytes", "1MB"])
    assert found.returncode == 1 and "exit code: 3" in found.stdout, found.stdout + found.stderr
    [error] = [line for line in found.stdout.splitlines() if line.startswith("error: ")]
    for name in ("big model.onnx", "two.onnx"):
        assert f"{name}: bytes 1,067,418, not ≤ 1,000,000 (--max-bytes)" in error
    assert "notes.txt" not in found.stdout


def test_the_hook_is_installed_without_a_runtime_and_needs_none(repository: Path) -> None:
    assert HOOK["language"] == "python" and "additional_dependencies" not in HOOK
    script = "import sys; sys.modules['onnxruntime'] = None; from onnxprune.cli import main; main()"
    arguments = ["gate", "--max-bytes", "2MB", "--max-macs", "1M", "two.onnx"]
    child = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=repository,
        env=program(repository.parent),
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
