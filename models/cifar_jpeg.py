"""CIFAR-10 recompressed as JPEG, which the repository has not: one blob of files, decoded and normalised."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


def images(
    folder: Path, split: str, rows: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The images of a split, or only `rows` of it, float32 `[n, 3, 32, 32]`, and their labels.

    Values are (pixel/255 − mean) / std. The bytes lie as `[n, 32, 32, 3]`, which convolutions like.
    """
    with np.load(folder / f"cifar10_{split}_jpegpack.npz") as file:
        blob, offsets, labels = file["blob"].tobytes(), file["offsets"], file["y"].astype(np.int64)
    chosen = np.arange(len(labels)) if rows is None else rows
    pixels = np.empty((len(chosen), 32, 32, 3), np.float32)
    for place, row in enumerate(chosen):
        pixels[place] = _decoded(blob[offsets[row] : offsets[row + 1]])
    pixels /= np.float32(255)
    pixels -= MEAN
    pixels /= STD
    return pixels.transpose(0, 3, 1, 2), labels[chosen]


def _decoded(data: bytes) -> npt.NDArray[Any]:
    from PIL import Image  # what else reads this file does without Pillow

    return np.asarray(Image.open(BytesIO(data)))
