"""Files of statistics, in safetensors: A and G by layer, and beside them what they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from onnxprune.errors import StatisticsError
from onnxprune.files import replacing
from onnxprune.statistics.factors import Factor, Gram, Samples
from onnxprune.statistics.shelf import shelved
from onnxprune.statistics.store import LayerStatistics, Statistics

Array = npt.NDArray[Any]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FORMAT = "onnxprune-statistics-1"


class _Header(BaseModel):
    """What a file says of all its layers; the fields of `Statistics`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    sha256: str
    samples: Annotated[int, Field(ge=1)]
    loss: str
    average: Literal["mean", "exponential"]
    seed: int
    positions: Annotated[int, Field(ge=1)] | None = None
    blocked: dict[str, str] = {}


class _Entry(BaseModel):
    """What a file says of one layer beside its sums."""

    model_config = ConfigDict(extra="forbid")

    form: Literal["samples", "gram"]
    weight: _Positive
    rows: _Positive
    samples: _Positive


_ENTRIES = TypeAdapter(dict[str, _Entry])


def save(statistics: Statistics, path: Path) -> None:
    """Write them, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, Array] = {}
    layers: dict[str, dict[str, Any]] = {}
    for index, (name, layer) in enumerate(statistics.layers.items()):
        tensors[f"{index}.A"] = np.ascontiguousarray(layer.activations.array)
        if layer.gradients is not None:
            tensors[f"{index}.G"] = layer.gradients.total
        layers[name] = {
            "form": "samples" if isinstance(layer.activations, Samples) else "gram",
            "weight": layer.activations.weight,
            "rows": layer.rows,
            "samples": layer.samples,
        }
    header = {key: getattr(statistics, key) for key in _Header.model_fields}
    meta = {"format": FORMAT, "statistics": json.dumps(header), "layers": json.dumps(layers)}
    with replacing(path, "the statistics") as partial:
        safetensors.numpy.save_file(tensors, partial, metadata=meta)
        _order(partial)


def _order(path: Path) -> None:
    """Sort what is said beside the tensors, in place: safetensors has it in another order at every run."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def load(path: Path) -> Statistics:
    """Read a file that `save` wrote, a layer at a time: what takes much memory goes to files of its own.

    Raises:
        OutputError: there is no room for these.
        StatisticsError: not such a file, cut off, or with NaN or Inf in it; names the file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            if meta.get("format") != FORMAT:
                raise StatisticsError(
                    f"{path} holds no onnxprune statistics; make them with `onnxprune calibrate`"
                )
        statistics = Statistics(**_Header.model_validate_json(meta["statistics"]).model_dump())
        broken = []
        for index, (name, entry) in enumerate(_ENTRIES.validate_json(meta["layers"]).items()):
            with safetensors.safe_open(path, framework="numpy") as file:  # open, it keeps all it has read
                layer = _read(file, index, entry)
            broken += [] if layer.finite() else [name]
            statistics.layers[name] = layer
            statistics.layers = shelved(statistics.layers)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        message = f"cannot read statistics from {path}: {reason}; make them again with `onnxprune calibrate`"
        raise StatisticsError(message) from error
    if broken:
        raise StatisticsError(
            f"{path}: layer {broken[0]!r} has NaN or Inf in its statistics; gather them again"
        )
    return statistics


def _read(file: Any, index: int, entry: _Entry) -> LayerStatistics:
    weight = entry.weight
    array = _factor(file, f"{index}.A", square=entry.form == "gram")
    activations: Factor = Samples(array, weight) if entry.form == "samples" else Gram(array, weight)
    gradients = f"{index}.G" in file.keys()
    return LayerStatistics(
        activations,
        Gram(_factor(file, f"{index}.G", square=True), weight) if gradients else None,
        entry.rows,
        entry.samples,
    )


def _factor(file: Any, name: str, square: bool) -> Array:
    array: Array = file.get_tensor(name)
    if (
        array.ndim != 3
        or array.dtype not in (np.float32, np.float64)
        or (square and len({*array.shape[1:]}) > 1)
    ):
        raise ValueError(f"'{name}' is {array.dtype} {list(array.shape)}")
    return array
