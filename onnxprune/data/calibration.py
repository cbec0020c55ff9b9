"""CalibrationReader: our data for other tools, by the protocol of onnxruntime's quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxprune.data.batches import BATCH_SIZE
from onnxprune.data.inputs import Array
from onnxprune.data.opening import open_data
from onnxprune.data.sources import Source
from onnxprune.model import read


class CalibrationReader:
    """Feeds of a model, one batch after the other: what onnxruntime calls a `CalibrationDataReader`.

    ```python
    reader = onnxprune.CalibrationReader("model.onnx", onnxprune.Images("train", "imagenet"), samples=500)
    quantize_static("model.onnx", "int8.onnx", reader, per_channel=True)
    ```
    """

    def __init__(
        self,
        model: str | Path,
        data: Source | None,
        *,
        samples: int | None = None,
        batch_size: int = BATCH_SIZE,
        seed: int = 0,
    ) -> None:
        """Open `data` for the inputs of `model`.

        Args:
            model: an ONNX file.
            data: whatever `onnxprune.compress` takes; None is noise.
            samples: so many, drawn by `seed`; all of them if None.
            batch_size: samples a feed, unless the model takes batches of another size only.
            seed: of the draw.

        Raises:
            DataError: the data does not fit the model.
            ModelError: the file is no ONNX model.
        """
        inputs = read(model).graph.inputs
        self.data = open_data(data, inputs, samples=samples, batch_size=batch_size, seed=seed)
        self.rewind()

    def get_next(self) -> dict[str, Array] | None:
        """The next feed, arrays by the names of the inputs; None after the last."""
        return next(self._feeds, None)

    def rewind(self) -> None:
        """Begin again with the first feed."""
        self._feeds: Iterator[dict[str, Array]] = (batch.feeds for batch in self.data.batches())
