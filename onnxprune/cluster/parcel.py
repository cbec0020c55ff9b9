"""Parcel: a model as the bytes of its files, of any size; the actors of a machine share one copy."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.model import map_weights

Parcel = dict[str, npt.NDArray[np.uint8]]

_GRAPH, _WEIGHTS = "model.onnx", "model.data"


def pack(model: ir.Model) -> Parcel:
    """The files of `model` by name; weights lie apart, since one message holds no more than 2 GiB."""
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        ir.save(model, Path(folder) / _GRAPH, external_data=_WEIGHTS)
        return {path.name: np.fromfile(path, np.uint8) for path in Path(folder).iterdir()}


def unpack(parcel: Parcel) -> ir.Model:
    """The model of a parcel, its weights mapped from files that have no name any more."""
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        for name, content in parcel.items():
            content.tofile(Path(folder) / name)
        model = ir.load(Path(folder) / _GRAPH)
        map_weights(model, Path(folder))
        return model
