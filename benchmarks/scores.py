"""Figures of merit that the package has not, each for a model file: exact text match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.subjects import Arrays
from onnxprune.session import Session

Array = npt.NDArray[Any]


def greedy_text(probabilities: Array, characters: Sequence[str]) -> list[str]:
    """CTC decoding of [n, steps, classes]: best class at each step, repeats joined, class 0 (blank) dropped.

    Class c is `characters[c - 1]`; spaces around the text do not count.
    """
    best = probabilities.argmax(-1)
    repeated = np.zeros(best.shape, bool)
    repeated[:, 1:] = best[:, 1:] == best[:, :-1]
    keep = (best != 0) & ~repeated
    return [
        "".join(characters[c - 1] for c in row[stay]).strip() for row, stay in zip(best, keep, strict=True)
    ]


def exact_match(path: Path, source: Path, evaluation: Arrays, batch: int = 20) -> float:
    """Share of text lines that `path` reads exactly; the metadata of `source` has the characters."""
    properties = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    characters = [*properties["character"].split("\n"), " "]
    session, x = Session(path), evaluation["x"]
    texts: list[str] = []
    for start in range(0, len(x), batch):
        (output,) = session.run({session.inputs[0]: x[start : start + batch]}).values()
        texts += greedy_text(output, characters)
    return float(np.mean([text == label for text, label in zip(texts, evaluation["labels"], strict=True)]))
