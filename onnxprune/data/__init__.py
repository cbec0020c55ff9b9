"""Data: from files, arrays or feeds to batches of named arrays that fit the model.

In reading order: `inputs` (what the model wants), `lazy` (samples read on demand) and `storage`, what data
come from: `archives`, `preprocess`, `pictures`, `images`, `rows`, `tables`, `folders`, `streams`, all of them
by `sources`; `opening` (the checks), `batches` (what comes out), `noise` (when there is no data),
`calibration` (the same for other tools).
"""

from onnxprune.data.batches import BATCH_SIZE, Batch, Data, try_batch
from onnxprune.data.calibration import CalibrationReader
from onnxprune.data.inputs import Input, wanted
from onnxprune.data.noise import noise
from onnxprune.data.opening import open_data
from onnxprune.data.preprocess import PRESETS, Preprocess, preprocessing
from onnxprune.data.sources import Images, Source, discover
from onnxprune.data.streams import imported, repeatable

__all__ = [
    "BATCH_SIZE",
    "PRESETS",
    "Batch",
    "CalibrationReader",
    "Data",
    "Images",
    "Input",
    "Preprocess",
    "Source",
    "discover",
    "imported",
    "noise",
    "open_data",
    "preprocessing",
    "repeatable",
    "try_batch",
    "wanted",
]
