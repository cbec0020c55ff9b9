"""What a hard case is: a small model, what it is fed, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

Feeds = dict[str, np.ndarray]
SAMPLES = 24
SAME = "as the weights"


@dataclass(frozen=True)
class Case:
    """A model that is hard in one way.

    `weights` and `units` are what becomes of `--ratio 0.95` and of `--units 0.25`: None where it works, else
    the sentence that refuses it, SAME if it is that of the weights, `…` standing for anything.
    `reasons` is what the report says of `--ratio 0.95`, name → why it was left alone. With `one_by_one` the
    model takes no batches but of one sample; `slow` ones take minutes and gigabytes.
    """

    family: str
    name: str
    model: Callable[[Path], Path]
    feeds: Callable[[np.random.Generator], Feeds]
    weights: str | None = None
    units: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    one_by_one: bool = False
    slow: bool = False

    @property
    def sentences(self) -> tuple[str | None, str | None]:
        """What refuses weights, and units."""
        return self.weights, self.weights if self.units == SAME else self.units

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.family}: {self.name}"


def text(
    body: str,
    weights: Mapping[str, Sequence[int]] | None = None,
    *,
    opset: int = 18,
    ir: int = 8,
    domains: str = "",
    dtype: Any = np.float32,
    functions: str = "",
    edit: Callable[[onnx.ModelProto], object] | None = None,
    **arrays: Any,
) -> Callable[[Path], Path]:
    """A model from ONNX's text form, `weights` (name → shape) drawn; `edit` changes the message."""

    def write(folder: Path) -> Path:
        rng = np.random.default_rng(7)
        proto = onnx.parser.parse_model(
            f'<ir_version: {ir}, opset_import: ["": {opset}{domains}]> {body} {functions}'
        )
        drawn = {
            name: (rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(dtype)
            for name, shape in (weights or {}).items()
        }
        for name, array in {**drawn, **arrays}.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        if edit is not None:
            edit(proto)
        path = folder / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return write


def floats(name: str = "x", *shape: int, dtype: Any = np.float32) -> Callable[[np.random.Generator], Feeds]:
    """Normal numbers for the one input `name`, [SAMPLES, *shape]."""
    return lambda rng: {name: rng.standard_normal((SAMPLES, *shape)).astype(dtype)}
