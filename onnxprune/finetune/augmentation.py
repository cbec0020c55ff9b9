"""Augmentation: images moved and mirrored, each in its own way at every step (Krizhevsky et al. 2012, §4.1).

Where it moved away from, an image goes on with its last row or column. What is drawn follows from the seed
and the step alone, so that a run that was killed goes on as it would have. The teacher sees the same images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.data import Batch, Data, Input
from onnxprune.data.inputs import Array
from onnxprune.errors import UsageError
from onnxprune.options import Training

_DRAWS = 0x5417  # keeps these draws apart from others made with the same seed
_AXES = {"nchw": (2, 3), "nhwc": (1, 2)}


def require_images(data: Data, options: Training, labels: bool) -> None:
    """Refuse to move what is no image, or where what is to be learned would have to move along.

    Args:
        data: what is trained on.
        options: whether images are moved or mirrored at all.
        labels: whether labels are learned.

    Raises:
        UsageError: no input is an image, or labels are by the pixel.
    """
    if not options.moves:
        return
    flag = "--shift" if options.shift else "--mirror"
    if not any(map(_is_image, data.inputs)):
        wants = ", ".join(map(str, data.inputs))
        raise UsageError(
            f"{flag}: it is for images, four axes with the batch in front; the model wants {wants}"
        )
    if labels and any(part.labels is not None and part.labels.ndim > 1 for part in data.parts):
        raise UsageError(
            f"{flag}: a sample has more than one label, which would not move along; learn from the teacher "
            "alone (--objective distillation), or give images that were moved before"
        )


def augmented(batch: Batch, data: Data, options: Training, step: int) -> Batch:
    """`batch` as it is at this step; all images of one sample move alike."""
    if not options.moves:
        return batch
    rng = np.random.default_rng([_DRAWS, options.seed, step])
    down, right = rng.integers(-options.shift, options.shift + 1, (2, batch.count))
    mirrored = (rng.random(batch.count) < 0.5) & options.mirror
    feeds = {
        want.name: _moved(batch.feeds[want.name], _AXES[want.layout], down, right, mirrored)
        if _is_image(want)
        else batch.feeds[want.name]
        for want in data.inputs
    }
    return replace(batch, feeds=feeds)


def _moved(images: Array, axes: tuple[int, int], down: Array, right: Array, mirrored: Array) -> Array:
    height, width = (images.shape[axis] for axis in axes)
    rows = np.clip(np.arange(height) - down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - right[:, None], 0, width - 1)
    columns[mirrored] = columns[mirrored, ::-1]
    apart = np.moveaxis(images, axes, (1, 2))
    moved = apart[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(np.moveaxis(moved, (1, 2), axes))


def _is_image(want: Input) -> bool:
    return want.sizes is not None and len(want.sizes) == 4 and want.batch_axis == 0
