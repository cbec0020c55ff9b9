"""Inputs: what a model wants to be fed, which axis is the batch, and whether an array is what it wants.

The batch axis is the one whose symbolic name the inputs share (`batch` on axis 1 of a recurrent state, say),
else axis 0. An input without it (a scalar, or all sizes fixed while others vary) is fed unchanged every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data.lazy import Array as Array
from onnxprune.data.lazy import Lazy
from onnxprune.errors import DataError, ModelError

Size = int | str | None  # fixed, symbolic, unknown

# Kinds of numpy dtypes (bool, int, unsigned, float) that may become the wanted kind if every value survives.
_CASTS = {"b": "biu", "i": "biu", "u": "biu", "f": "biuf"}
_NO_NUMBERS = (ir.DataType.STRING, ir.DataType.UNDEFINED)
_LAYOUTS = {(0, 3, 1, 2): "channels last", (0, 2, 3, 1): "channels first"}
_CHANNELS = (1, 3)  # of images
_CHUNK = 2**22  # elements looked at together, so that checking a file needs little memory


@dataclass(frozen=True)
class Input:
    """One model input. `sizes` is None where even the rank is unknown; `batch_axis` None: fed unchanged."""

    name: str
    dtype: np.dtype[Any]
    sizes: tuple[Size, ...] | None
    batch_axis: int | None

    def __str__(self) -> str:
        if self.sizes is None:
            return f"'{self.name}' {self.dtype}[...]"
        return f"'{self.name}' {self.dtype}[{','.join('?' if s is None else str(s) for s in self.sizes)}]"

    @property
    def layout(self) -> Literal["nchw", "nhwc"]:
        """Where images have their channels: behind only if that size, and not the other, is one of theirs."""
        sizes = self.sizes or ()
        last = len(sizes) == 4 and sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS
        return "nhwc" if last else "nchw"

    @property
    def fixed_batch(self) -> int | None:
        """The batch size the model insists on; None where it takes any."""
        if self.sizes is None or self.batch_axis is None:
            return None
        size = self.sizes[self.batch_axis]
        return size if isinstance(size, int) else None

    def count(self, array: Array | Lazy) -> int:
        """Samples in `array`; 1 for an input without a batch axis."""
        return int(array.shape[self.batch_axis]) if self.batch_axis is not None else 1

    def take(self, array: Array | Lazy, rows: npt.NDArray[np.int64]) -> Array:
        """The samples `rows` of `array` in the model's dtype; all of it where there is no batch axis."""
        found = self._read(array, rows)
        return np.ascontiguousarray(found, dtype=self.dtype).reshape(found.shape)

    def check_shape(self, shape: Sequence[int], where: str) -> None:
        """Refuse another rank or another fixed size.

        Raises:
            DataError: names both shapes, and the transposition or missing axis where that is what is wrong.
        """
        if self.sizes is None or self._fits(shape):
            return
        remedy = self._shape_remedy(shape)
        raise DataError(f"{where}: shape {list(shape)} does not fit the input {self}; {remedy}")

    def check_values(self, array: Array | Lazy, where: str, samples: npt.NDArray[np.int64]) -> None:
        """Refuse NaN, Inf and values the model's dtype cannot hold; `samples` are the ones looked at.

        Raises:
            DataError: names the first bad sample by its number in the source.
        """
        if array.dtype.kind not in _CASTS.get(self.dtype.kind, ""):
            raise DataError(f"{where}: {array.dtype} cannot be fed to the input {self}; convert it first")
        if isinstance(array, Lazy) and array.sound(samples):
            return
        axis = self.batch_axis
        step = max(1, _CHUNK * max(1, self.count(array)) // max(1, array.size))
        for start in range(0, len(samples), step):
            rows = samples[start : start + step]
            found = self._read(array, rows)
            chunk = found if axis is None else np.moveaxis(found, axis, 0)
            bad = _misfits(chunk, self.dtype)
            if bad is None:
                continue
            wrong = bad[0].reshape(len(chunk) if axis is not None else 1, -1).any(axis=1)
            at = f" at sample {rows[int(wrong.argmax())]}" if axis is not None else ""
            raise DataError(f"{where}: {bad[1]}{at} for the input {self}; remove or repair such samples")

    def _read(self, array: Array | Lazy, rows: npt.NDArray[np.int64]) -> Array:
        if self.batch_axis is None:
            return array[...]
        return array[(slice(None),) * self.batch_axis + (rows,)]

    def _fits(self, shape: Sequence[int]) -> bool:
        assert self.sizes is not None
        return len(shape) == len(self.sizes) and all(
            not isinstance(size, int) or size == given or axis == self.batch_axis
            for axis, (size, given) in enumerate(zip(self.sizes, shape, strict=True))
        )

    def _shape_remedy(self, shape: Sequence[int]) -> str:
        axis = self.batch_axis
        if axis is not None and self._fits([*shape[:axis], 1, *shape[axis:]]):
            return f"it has no batch axis: for one sample use np.expand_dims(array, {axis})"
        for order, meaning in _LAYOUTS.items():
            if len(shape) == len(order) and self._fits([shape[i] for i in order]):
                return f"it is {meaning}: use array.transpose{order}"
        if shape and self._fits([shape[0], 1, *shape[1:]]):
            return "the channel axis is missing: use array[:, None]"
        return "static sizes must be equal, symbolic ones may vary"


def wanted(values: Iterable[ir.Value]) -> list[Input]:
    """What the graph inputs `values` want; inputs that are initializers have their value already.

    Raises:
        ModelError: an input that is not a numeric tensor.
    """
    open_inputs = [value for value in values if not value.is_initializer()]
    shapes = [_sizes(value) for value in open_inputs]
    axes = _batch_axes(shapes)
    return [
        Input(value.name or "", _dtype(value), sizes, axis)
        for value, sizes, axis in zip(open_inputs, shapes, axes, strict=True)
    ]


def fixed_batch(wants: Sequence[Input]) -> int | None:
    """The batch size the model insists on; None where it takes any."""
    return next((want.fixed_batch for want in wants if want.fixed_batch), None)


def listed(wants: Sequence[Input]) -> str:
    """The inputs in words, for messages."""
    return ", ".join(str(want) for want in wants)


def _sizes(value: ir.Value) -> tuple[Size, ...] | None:
    if value.shape is None:
        return None
    raw = [size if isinstance(size, int) else size.value for size in value.shape]
    return tuple(None if isinstance(size, int) and size < 1 else size for size in raw)  # −1 and 0: "any"


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if not isinstance(value.type, ir.TensorType) or value.dtype is None or value.dtype in _NO_NUMBERS:
        raise ModelError(f"the input '{value.name}' ({value.type}) is no numeric tensor; it cannot be fed")
    dtype = np.dtype(value.dtype.numpy())
    if dtype.kind not in _CASTS:
        raise ModelError(
            f"the input '{value.name}' takes {dtype}, which onnxruntime cannot be fed from Python; "
            "export the model with float32 or float16 inputs"
        )
    return dtype


def _batch_axes(shapes: Sequence[tuple[Size, ...] | None]) -> list[int | None]:
    known = [sizes for sizes in shapes if sizes]
    symbols = [size for sizes in known for size in sizes if isinstance(size, str) and "batch" in size.lower()]
    symbols += [sizes[0] for sizes in known if isinstance(sizes[0], str)]
    free = bool(symbols) or any(sizes[0] is None for sizes in known) or None in shapes
    fixed = known[0][0] if known and not free else None

    def axis(sizes: tuple[Size, ...] | None) -> int | None:
        if sizes is None:
            return 0
        if symbols and symbols[0] in sizes:
            return sizes.index(symbols[0])
        leads = bool(sizes) and (not isinstance(sizes[0], int) or sizes[0] == fixed)
        return 0 if leads else None

    return [axis(sizes) for sizes in shapes]


def _misfits(values: Array, wanted: np.dtype[Any]) -> tuple[npt.NDArray[np.bool_], str] | None:
    """Where `values` are not finite or do not survive the cast, and what is wrong; None if all is well."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            return ~finite, "NaN or Inf"
    if np.can_cast(values.dtype, wanted, "safe"):
        return None
    with np.errstate(all="ignore"):  # the comparison below says what a cast lost, better than a warning
        cast = values.astype(wanted)
        if values.dtype.kind == "f":
            lost = ~np.isfinite(cast)
        else:
            lost = (cast.astype(values.dtype) != values) | ((cast < 0) != (values < 0))
    return (lost, f"{values.dtype} values that {wanted} cannot hold") if lost.any() else None
