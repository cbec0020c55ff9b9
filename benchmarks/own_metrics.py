"""Metrics for `--metric benchmarks.own_metrics:NAME`, of models that are no classifiers; higher is better.

What has no labels is compared with the dense model, on the same inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.common import SHARED
from benchmarks.scores import greedy_text

Array = npt.NDArray[Any]
Lists = Mapping[str, Sequence[Array]]

_TEXT_PIXEL = 0.3  # PaddleOCR's threshold of the detector's map
_NOTE, _ONSET = 0.3, 0.5  # basic_pitch's thresholds
_ACTIVE = {"StatefulPartitionedCall:1": _NOTE, "StatefulPartitionedCall:2": _ONSET}


def exact_match(outputs: Lists, labels: Sequence[Array], reference: Lists | None) -> float:
    """Share of text lines that the recogniser reads exactly as they are labelled."""
    (batches,) = outputs.values()
    texts = [text for batch in batches for text in greedy_text(batch, _characters())]
    return float(np.mean([text == label for text, label in zip(texts, np.concatenate(labels), strict=True)]))


def map_overlap(outputs: Lists, labels: Any, reference: Lists) -> float:
    """Intersection over union of the pixels that the detector calls text, with the dense model's; by page."""
    (maps,), (wanted,) = outputs.values(), reference.values()
    pages = zip(np.concatenate(maps) > _TEXT_PIXEL, np.concatenate(wanted) > _TEXT_PIXEL, strict=True)
    return float(np.mean([(ours & theirs).sum() / max((ours | theirs).sum(), 1) for ours, theirs in pages]))


def note_overlap(outputs: Lists, labels: Any, reference: Lists) -> float:
    """F-measure of the frames where notes sound or begin, against the dense model's; over all clips."""
    both = either = 0
    for name, least in _ACTIVE.items():
        ours, theirs = (np.concatenate(lists[name]) > least for lists in (outputs, reference))
        both, either = both + 2 * int((ours & theirs).sum()), either + int(ours.sum() + theirs.sum())
    return both / max(either, 1)


def speech_agreement(outputs: Lists, labels: Any, reference: Lists) -> float:
    """1 less the mean distance of the probability of speech from the dense model's."""
    ours, theirs = (np.concatenate(lists["output"]) for lists in (outputs, reference))
    return 1 - float(np.abs(ours - theirs).mean())


@cache
def _characters() -> tuple[str, ...]:
    model = onnx.load(SHARED / "models" / "ch_PP-OCRv4_rec_infer.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    return (*properties["character"].split("\n"), " ")
