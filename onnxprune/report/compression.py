"""The report of a compression, from the models before and after."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.cut import Cut
from onnxprune.data import Data
from onnxprune.layers import Layer, find_layers
from onnxprune.model import Model, parameter_count, parameters
from onnxprune.options import Options
from onnxprune.prune import Pruned
from onnxprune.report import schema
from onnxprune.report.bins import histogram, saliency_map
from onnxprune.report.versions import versions
from onnxprune.statistics import Statistics

Array = npt.NDArray[Any]


class Sizes(NamedTuple):
    """Parameters and MACs of a sample (None where unknown) of the dense model and of the pruned one."""

    params_before: int
    params_after: int
    nonzero_after: int
    macs_before: int | None
    macs_after: int | None

    @property
    def kept_ratio(self) -> float:
        """The share of the dense model's parameters that is not zero."""
        return self.nonzero_after / self.params_before


def sizes_of(loaded: Model, pruned: Pruned, statistics: Statistics | None) -> Sizes:
    """What the dense and the pruned model take; arguments as for `describe`."""
    after = parameters(pruned.model)
    before_layers, after_layers = _layers(loaded.ir), _layers(pruned.model)
    positions = _positions(before_layers, statistics)
    return Sizes(
        parameter_count(loaded),
        sum(tensor.size for tensor in after.values()),
        sum(int(np.count_nonzero(tensor.numpy())) for tensor in after.values()),
        _macs(before_layers, positions),
        _macs(after_layers, positions),
    )


def describe(
    loaded: Model,
    pruned: Pruned,
    cut: Cut | None,
    statistics: Statistics | None,
    data: Data,
    options: Options,
) -> schema.CompressionReport:
    """The report of one compression, but for what is only known once it is written and measured.

    Args:
        loaded: the dense model.
        pruned: the pruned one, units and dead units gone.
        cut: the units that went, if any.
        statistics: those used, if any.
        data: the calibration data.
        options: all of them.
    """
    sizes = sizes_of(loaded, pruned, statistics)
    before_layers, after_layers = _layers(loaded.ir), _layers(pruned.model)
    return schema.CompressionReport(
        model=str(loaded.path or "model"),
        sha256=loaded.sha256,
        kept_ratio=sizes.kept_ratio,
        **sizes._asdict(),
        bytes_before=loaded.bytes,
        layers=tuple(
            layer_row(layer, after_layers.get(name), pruned.importance.get(name))
            for name, layer in before_layers.items()
        ),
        saliency_map=saliency_map(
            [
                (_weights(before_layers[name]), scores, pruned.kept[name])
                for name, scores in pruned.scores.items()
            ]
        ),
        data=data.description,
        units=_unit_rows(cut),
        loss=_loss(statistics, cut),
        opset_before=loaded.opset_before,
        opset_after=loaded.ir.opset_imports.get("", 0),
        warnings=(*((data.description,) if data.synthetic else ()), *data.notes, *_warnings(pruned)),
        options=options.model_dump(mode="json"),
        versions=versions(),
    )


def layer_row(before: Layer, after: Layer | None, importance: float | None) -> schema.LayerRow:
    """What became of one layer; `after` is None where it left the graph, `importance` where there is none."""
    dense = _weights(before)
    pruned = np.zeros(0) if after is None else _weights(after)
    return schema.LayerRow(
        name=before.name,
        op=before.op,
        shape=before.shape,
        kept=np.count_nonzero(pruned) / before.size,
        importance=importance,
        histogram=histogram(dense, pruned),
    )


def _weights(layer: Layer) -> Array:
    """As they are, not in float64: of the largest layers that is a gigabyte."""
    return layer.read(layer.dtype)[0]


def _layers(model: ir.Model) -> dict[str, Layer]:
    return {layer.name: layer for layer in find_layers(model.graph)}


def _positions(layers: dict[str, Layer], statistics: Statistics | None) -> dict[str, float | None]:
    """Positions per sample: measured where there are statistics, else from static shapes."""
    if statistics is not None:
        return {name: known.positions for name, known in statistics.layers.items()}
    return {
        name: layer.macs / layer.size if layer.macs is not None else None for name, layer in layers.items()
    }


def _macs(layers: dict[str, Layer], positions: dict[str, float | None]) -> int | None:
    counts = [positions.get(name) for name in layers]
    if any(count is None for count in counts):
        return None
    return round(sum(layer.size * (count or 0) for layer, count in zip(layers.values(), counts, strict=True)))


def _unit_rows(cut: Cut | None) -> tuple[schema.UnitRow, ...]:
    if cut is None:
        return ()
    return tuple(
        schema.UnitRow(
            name=family.name,
            units=family.size,
            kept=int(kept),
            makers=tuple(touch.layer.name for touch in family.makers),
            readers=tuple(touch.layer.name for touch in family.readers),
        )
        for family, kept in zip(cut.families.families, cut.kept, strict=True)
    )


def _loss(statistics: Statistics | None, cut: Cut | None) -> str:
    said = [statistics.loss] if statistics is not None else []
    said += [f"unit scores: {cut.loss}"] if cut is not None and cut.loss else []
    return "; ".join(said) or "none"


def _warnings(pruned: Pruned) -> tuple[str, ...]:
    return tuple(
        f"layer {name!r} lost units and can have no bias for their means: its weight is in several places"
        for name in pruned.without_mean
    )
