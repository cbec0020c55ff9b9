"""Records: what the library returns, the console prints and `--json` writes.

Counts are exact integers, ratios are fractions in 0..1, times are seconds. `model_dump_json(indent=2)` is the
file format, `CompressionReport.model_validate_json(text)` reads it back. Long rows of numbers (`Counts`,
`Costs`) are one text there, with spaces between, so that the file stays readable.
"""

from onnxprune.report.schema.base import MemoryUse, MetricChange, Record, Skipped, Spread
from onnxprune.report.schema.compression import (
    CompressionReport,
    CurvePoint,
    GoalReport,
    Histogram,
    LayerRow,
    SaliencyMap,
    StageRow,
    SweepReport,
    Trial,
    UnitRow,
)
from onnxprune.report.schema.inspection import (
    CalibratedLayer,
    Calibration,
    InspectedLayer,
    InspectedUnits,
    Inspection,
)
from onnxprune.report.schema.others import (
    BenchedModel,
    BenchReport,
    EpochRow,
    FinetuneReport,
    GateCheck,
    GatedModel,
    GateReport,
    Latency,
    PackReport,
    Repacking,
    UnpackReport,
)

__all__ = [
    "BenchReport",
    "BenchedModel",
    "CalibratedLayer",
    "Calibration",
    "CompressionReport",
    "CurvePoint",
    "EpochRow",
    "FinetuneReport",
    "GateCheck",
    "GateReport",
    "GatedModel",
    "GoalReport",
    "Histogram",
    "InspectedLayer",
    "InspectedUnits",
    "Inspection",
    "Latency",
    "LayerRow",
    "MemoryUse",
    "MetricChange",
    "PackReport",
    "Record",
    "Repacking",
    "SaliencyMap",
    "Skipped",
    "Spread",
    "StageRow",
    "SweepReport",
    "Trial",
    "UnitRow",
    "UnpackReport",
]
