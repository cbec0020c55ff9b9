"""A classifier of one's own: torch → ONNX → pruned → int8 → packed, each file measured.

    python examples/classifier.py digits        # a folder for the files
    python examples/serve.py digits/tiny.onnx   # then: see docs/examples/classifier.md

Trains for half a minute on the 1,000 digits in `calibration/lenet_5.npz`; wants torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

import onnxprune
from onnxprune.evaluate import evaluate

CALIBRATION = Path(__file__).resolve().parent.parent / "calibration"
TRAIN, TEST = CALIBRATION / "lenet_5.npz", CALIBRATION / "lenet_5.eval.npz"


def trained(epochs: int = 15) -> nn.Module:
    """A small network, trained on what there is."""
    torch.manual_seed(0)
    archive = np.load(TRAIN)
    images, labels = torch.from_numpy(archive["input"]), torch.from_numpy(archive["labels"]).long()
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def main(folder: Path, epochs: int = 15) -> dict[str, tuple[int, float]]:
    """Make the files in `folder`; bytes and accuracy of each."""
    folder.mkdir(parents=True, exist_ok=True)
    dense, small, plain, int8, tiny = (
        folder / f"{name}.onnx" for name in ("dense", "small", "plain", "int8", "tiny")
    )
    torch.onnx.export(
        *(trained(epochs), (torch.zeros(2, 1, 28, 28),), dense),
        **{"dynamo": True, "dynamic_shapes": ({0: "batch"},), "external_data": False, "verbose": False},
    )
    onnxprune.compress(dense, TRAIN, ratio=0.15, output=small)
    quant_pre_process(small, plain)
    reader = onnxprune.CalibrationReader(plain, TRAIN, samples=200)
    quantize_static(plain, int8, reader, per_channel=True)
    onnxprune.pack(int8, tiny)
    return {
        path.stem: (path.stat().st_size, evaluate(path, TEST).values["top1"])
        for path in (dense, small, int8, tiny)
    }


if __name__ == "__main__":
    for name, (size, accuracy) in main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits")).items():
        print(f"{name:6} {size:9,} bytes  top1 {accuracy:.2%}")
