"""A detector like YOLOv8: its blocks exported, half of its work removed, and its boxes compared.

    python examples/detector.py detector      # a folder for the files

C2f blocks with SiLU, a path down and up again with Resize and Concat, SPPF, and a head whose sides are
expected values over bins (DFL). Weights are random: it shows that such graphs are cut, and how boxes make a
metric, and nothing about accuracy. Wants torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import onnxprune

DIGITS = Path(__file__).resolve().parent.parent / "calibration" / "lenet_5.npz"
SIDE, CLASSES, BINS = 96, 10, 8


def conv(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Module:
    """Convolution, batch norm, SiLU."""
    own = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(own, nn.BatchNorm2d(outputs), nn.SiLU())


class C2f(nn.Module):
    """Half of the channels goes through bottlenecks, and all that comes out on the way is joined."""

    def __init__(self, inputs: int, outputs: int, count: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.first, self.last = conv(inputs, outputs), conv((2 + count) * half, outputs)
        self.steps = nn.ModuleList(
            nn.Sequential(conv(half, half, 3), conv(half, half, 3)) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    """What three pools in a row see."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = conv(channels, channels // 2), conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """Boxes [n, 4, cells], left, top, right, bottom in cells' strides, and scores [n, classes, cells]."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), C2f(32, 32))
        self.fine = nn.Sequential(conv(32, 64, 3, 2), C2f(64, 64))
        self.coarse = nn.Sequential(conv(64, 128, 3, 2), C2f(128, 128), SPPF(128))
        self.up, self.join = nn.Upsample(scale_factor=2), C2f(192, 64)
        self.again, self.back = conv(64, 64, 3, 2), C2f(192, 128)
        self.boxes = nn.ModuleList(
            nn.Sequential(conv(c, 32, 3), nn.Conv2d(32, 4 * BINS, 1)) for c in (64, 128)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(conv(c, 32, 3), nn.Conv2d(32, CLASSES, 1)) for c in (64, 128)
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)  # what goes in comes through; torch's default fades away
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32).reshape(1, 1, BINS, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.down(x))
        coarse = self.coarse(fine)
        joined = self.join(torch.cat([self.up(coarse), fine], 1))
        levels = (joined, self.back(torch.cat([self.again(joined), coarse], 1)))
        boxes = torch.cat([head(y).flatten(2) for head, y in zip(self.boxes, levels, strict=True)], 2)
        scores = torch.cat([head(y).flatten(2) for head, y in zip(self.scores, levels, strict=True)], 2)
        sides = boxes.reshape(-1, 4, BINS, boxes.shape[2]).softmax(2)
        return (sides * self.bins).sum(2), scores.sigmoid()


def scenes(count: int, seed: int) -> np.ndarray:
    """Grey images [count, 3, SIDE, SIDE] with four digits each, somewhere."""
    rng, digits = np.random.default_rng(seed), np.load(DIGITS)["input"][:, 0]
    images = np.zeros((count, 3, SIDE, SIDE), np.float32)
    for image in images:
        for digit in digits[rng.integers(0, len(digits), 4)]:
            top, left = rng.integers(0, SIDE - 28, 2)
            place = image[:, top : top + 28, left : left + 28]
            np.maximum(place, digit, out=place)
    return images


def same_boxes(
    outputs: dict[str, Sequence[np.ndarray]], labels: Any, reference: dict[str, Sequence[np.ndarray]]
) -> float:
    """Mean overlap (IoU) of the boxes that the dense model is surest of, ten an image, with ours there."""
    overlaps = []
    for ours, theirs, scores in zip(outputs["boxes"], reference["boxes"], reference["scores"], strict=True):
        surest = np.argsort(-scores.max(1), axis=1)[:, None, :10]
        a, b = (np.take_along_axis(boxes, surest, 2) for boxes in (ours, theirs))
        shared = np.minimum(a, b)  # both are around the centre of one cell
        inside = (shared[:, 0] + shared[:, 2]) * (shared[:, 1] + shared[:, 3])
        areas = [(box[:, 0] + box[:, 2]) * (box[:, 1] + box[:, 3]) for box in (a, b)]
        overlaps.append(inside / np.maximum(sum(areas) - inside, 1e-9))
    return float(np.mean(np.concatenate(overlaps)))


def main(folder: Path, images: int = 64) -> onnxprune.Result:
    """Make the files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.onnx.export(
        *(Detector().eval(), (torch.zeros(2, 3, SIDE, SIDE),), folder / "dense.onnx"),
        output_names=["boxes", "scores"],
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        external_data=False,
        verbose=False,
    )
    return onnxprune.compress(
        *(folder / "dense.onnx", scenes(images, 0)),
        macs=0.5,
        evaluation=scenes(32, 1),
        metric=same_boxes,
        output=folder / "fast.onnx",
    )


if __name__ == "__main__":
    report = main(Path(sys.argv[1] if len(sys.argv) > 1 else "detector")).report
    assert report.metric is not None
    print(f"{report.macs_before:,} → {report.macs_after:,} MACs")
    print(f"{report.bytes_before:,} → {report.bytes_after:,} bytes")
    print(f"boxes as the dense model's: {report.metric.before:.3f} → {report.metric.after:.3f}")
