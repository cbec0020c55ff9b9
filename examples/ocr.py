"""PP-OCR's recogniser, pruned until one word in a hundred more is misread.

    python examples/ocr.py ch_PP-OCRv4_rec_infer.onnx words.npz small.onnx

`words.npz` has text lines as `x` uint8 [n, 48, width] and what they say as `label`. The metric is the share
of lines that are read exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxprune

CHARACTERS: list[str] = []  # of the model, by `read_characters`; class 0 is CTC's blank


def read_characters(model: Path) -> None:
    """The alphabet that PaddleOCR's converter leaves in the file."""
    entries = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    CHARACTERS[:] = ["", *entries["character"].splitlines(), " "]


def decoded(scores: np.ndarray) -> str:
    """Greedy CTC of one line, scores [time, classes]: repeats are one, blanks are none."""
    classes = scores.argmax(-1)
    changes = np.diff(classes, prepend=-1) != 0
    return "".join(CHARACTERS[number] for number in classes[changes]).strip()


def exact_match(
    outputs: dict[str, Sequence[np.ndarray]], labels: Sequence[np.ndarray], reference: Any
) -> float:
    """The share of lines read exactly; lists have an array a batch."""
    (batches,) = outputs.values()
    read = [decoded(line) for batch in batches for line in batch]
    return float(np.mean([text == word for text, word in zip(read, np.concatenate(labels), strict=True)]))


def lines(archive: Path) -> dict[str, np.ndarray]:
    """What PaddleOCR makes of pixels: x / 127.5 − 1 in three equal channels."""
    arrays = np.load(archive)
    images = arrays["x"].astype(np.float32) / 127.5 - 1
    return {"x": np.repeat(images[:, None], 3, axis=1), "labels": arrays["label"]}


def main(model: Path, words: Path, output: Path, **options: Any) -> onnxprune.Result:
    """Prune `model` on a half of `words`, whose labels it does not see, and measure on the other."""
    read_characters(model)
    data = lines(words)
    half = len(data["labels"]) // 2
    return onnxprune.compress_to_goal(
        *(model, {"x": data["x"][:half]}),
        evaluation={name: array[half:] for name, array in data.items()},
        metric=exact_match,
        output=output,
        **{"max_drop": 0.01, **options},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "words", "output"):
        parser.add_argument(name, type=Path)
    report = main(**vars(parser.parse_args())).report
    assert report.metric is not None
    print(f"{report.bytes_before:,} → {report.bytes_after:,} bytes, {report.kept_ratio:.1%} of the weights")
    print(f"read exactly: {report.metric.before:.1%} → {report.metric.after:.1%}")
