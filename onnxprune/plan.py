"""Plan: which units go and which weights stay, as data; JSON in and out.

Scores make plans, passes apply them, nothing does both.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import UsageError

Mask = npt.NDArray[np.bool_]


@dataclass
class Plan:
    """What to cut from the model with hash `sha256`.

    `kept` holds a mask for each layer by name, [groups, d_out, d_in], True where the weight stays; layers
    that are not in it stay whole. `importance` is each layer's share of the sum of all saliencies. `options`
    are the run's. `units` has the units that go, by family and as places in it (see `units.families`); what
    replaces them is in the options.
    """

    sha256: str
    options: dict[str, Any]
    kept: dict[str, Mask]
    importance: dict[str, float]
    units: dict[str, list[int]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Masks as base64 of their bits, everything else readable."""
        masks = {
            name: {"shape": mask.shape, "bits": base64.b64encode(np.packbits(mask).tobytes()).decode()}
            for name, mask in self.kept.items()
        }
        return json.dumps(
            {
                "sha256": self.sha256,
                "options": self.options,
                "importance": self.importance,
                "units": self.units,
                "kept": masks,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of `to_json`.

        Raises:
            UsageError: not a plan, or a mask of another size than its shape.
        """
        try:
            data = json.loads(text)
            kept = {name: _unpack(entry) for name, entry in data["kept"].items()}
            units = {str(name): [int(place) for place in places] for name, places in data["units"].items()}
            return cls(str(data["sha256"]), dict(data["options"]), kept, dict(data["importance"]), units)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise UsageError(f"not an onnxprune plan: {error}") from error

    def require(self, sha256: str) -> None:
        """Refuse to be used for another model, as `Statistics` do.

        Raises:
            UsageError: the hashes differ.
        """
        if sha256 != self.sha256:
            raise UsageError(
                f"this plan is of another model (sha256 {self.sha256[:12]}…, this one is {sha256[:12]}…); "
                "make one for this model"
            )

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan file.

        Raises:
            UsageError: it cannot be read or is not a plan.
        """
        try:
            return cls.from_json(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the plan {path}: {error}") from error


def _unpack(entry: dict[str, Any]) -> Mask:
    shape = tuple(int(size) for size in entry["shape"])
    count = prod(shape)
    packed = np.frombuffer(base64.b64decode(entry["bits"], validate=True), dtype=np.uint8)
    if min(shape, default=1) < 0 or packed.size != -(-count // 8):
        raise ValueError(f"a mask of shape {list(shape)} in {packed.size} bytes")
    return np.unpackbits(packed, count=count).astype(bool).reshape(shape)
