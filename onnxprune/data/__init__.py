"""Data: from files, arrays or feeds to batches of named arrays that fit the model.

In reading order: `inputs` (what the model wants), `sources` (files and arrays), `opening` (the checks),
`batches` (what comes out), `noise` (when there is no data).
"""

from onnxprune.data.batches import BATCH_SIZE, Batch, Data, try_batch
from onnxprune.data.inputs import Input, wanted
from onnxprune.data.noise import noise
from onnxprune.data.opening import open_data
from onnxprune.data.sources import Source, discover

__all__ = [
    "BATCH_SIZE",
    "Batch",
    "Data",
    "Input",
    "Source",
    "discover",
    "noise",
    "open_data",
    "try_batch",
    "wanted",
]
