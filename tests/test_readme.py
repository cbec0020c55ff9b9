"""The README's walk from a model of one's own, block by block as a reader copies it, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
WALK = (ROOT / "README.md").read_text("utf-8").partition("## Your own model")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", WALK, re.M | re.S)
NAMES = [language for language, _ in BLOCKS]
CLASSES, SIDE = 3, 32

MODEL = f"""
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, 2), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, {CLASSES}),
)
"""


def images(folder: Path, count: int, seed: int) -> None:
    """Noise of a colour by class."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[..., number % CLASSES] += 120
        place = folder / "red green blue".split()[number % CLASSES] / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has: torch, a model, images."""
    for package in ("torch", "PIL", "jinja2", "matplotlib"):
        pytest.importorskip(package)
    images(tmp_path / "train", 60, 0)
    images(tmp_path / "val", 60, 1)
    return tmp_path


def test_the_walk_has_the_blocks_that_are_run_here() -> None:
    assert NAMES == ["python", "yaml", "sh", "python"]
    assert "torch.onnx.export" in BLOCKS[0][1] and BLOCKS[3][1].startswith("# quantise.py")


def test_from_an_empty_folder_to_a_packed_int8_file(folder: Path) -> None:
    export, preprocess, commands, quantise = (text for _, text in BLOCKS)
    (folder / "export.py").write_text(MODEL + export, encoding="utf-8")
    (folder / "preprocess.yaml").write_text(preprocess, encoding="utf-8")
    (folder / "quantise.py").write_text(quantise, encoding="utf-8")
    shell = 'set -e\nonnxprune() { python -m onnxprune "$@"; }\npython export.py\n' + commands
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = {path.stem: path.stat().st_size for path in folder.glob("*.onnx")}
    assert sizes.keys() == {"model", "small", "plain", "int8", "tiny"}
    assert sizes["small"] < sizes["model"] and sizes["tiny"] <= sizes["int8"]  # hardly a weight is left
    assert "Compression of" in (folder / "report.html").read_text("utf-8")
    assert done.stdout.count("top1") >= 3 and "labelled by its sub-folders (0 = blue" in done.stdout
