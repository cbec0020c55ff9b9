"""Noise: the stand-in for data when there is none; its description says so loudly."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx_ir as ir

from onnxprune.data.batches import BATCH_SIZE, Data, Part
from onnxprune.data.inputs import Array, Input, fixed_batch, wanted
from onnxprune.data.storage import require_room

SAMPLES = 256
_UNKNOWN_SIZE = 64  # what is taken for a symbolic size other than the batch


def noise(
    inputs: Iterable[ir.Value], count: int = SAMPLES, *, seed: int = 0, batch_size: int = BATCH_SIZE
) -> Data:
    """Standard normal floats, integers in 0..9, random booleans; 64 for sizes the model leaves open.

    Raises:
        ModelError: an input that is not a numeric tensor.
        DataError: more than this machine's memory has room for.
    """
    wants = wanted(inputs)
    generator = np.random.default_rng(seed)
    fixed = fixed_batch(wants)
    if fixed:
        count = -(-count // fixed) * fixed
    if all(want.batch_axis is None for want in wants):
        count = 1
    arrays = {want.name: _draw(want, count, generator) for want in wants}
    description = f"data-free: {count:,} samples of random noise (seed {seed}), not real data"
    part = Part(arrays, None, np.arange(count))
    return Data(tuple(wants), fixed or batch_size, description, (part,), synthetic=True)


def _draw(want: Input, count: int, generator: np.random.Generator) -> Array:
    sizes = [size if isinstance(size, int) else _UNKNOWN_SIZE for size in want.sizes or ()]
    if want.sizes is None:
        sizes = [count]
    if want.batch_axis is not None:
        sizes[want.batch_axis] = count
    size = prod(sizes) * np.dtype(np.float64).itemsize
    require_room(size, f"random noise for the input {want}", "give data, or fewer --samples")
    if want.dtype.kind == "f":
        return np.asarray(generator.standard_normal(sizes)).astype(want.dtype)
    return np.asarray(generator.integers(0, 2 if want.dtype.kind == "b" else 10, sizes)).astype(want.dtype)
