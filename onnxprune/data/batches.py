"""Batches: what data is once it is open.

Data is cut into *parts*; within a part all samples have one shape, so that any run of them is a batch. A file
is one part, a list of feeds has as many as it has shapes. Parts keep the source's dtype and may be lazy: a
batch is read, and cast to the model's dtype, when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxprune.data.inputs import Array, Input
from onnxprune.data.lazy import Lazy
from onnxprune.errors import DataError, ModelError
from onnxprune.session import Session

BATCH_SIZE = 32


@dataclass(frozen=True)
class Batch:
    """One batch: an array for every model input, in its dtype, and the labels [count] where there are any."""

    feeds: dict[str, Array]
    labels: Array | None
    count: int


@dataclass(frozen=True)
class Part:
    """Samples of one shape: the chosen `rows` of `arrays` (by input name) and of `labels`."""

    arrays: Mapping[str, Array | Lazy]
    labels: Array | None
    rows: npt.NDArray[np.int64]

    def only(self, rows: npt.NDArray[np.int64]) -> Part:
        """The same arrays, with other rows chosen."""
        return Part(self.arrays, self.labels, rows)


@dataclass(frozen=True)
class Data:
    """Batches of samples, as often as wanted, always the same ones in the same order.

    `description` is for people (it begins with "data-free" where nothing is real), `notes` say what was left
    out, `synthetic` that the samples are noise, and `classes` how many names the labels are numbers of, if
    they are.
    """

    inputs: tuple[Input, ...]
    batch_size: int
    description: str
    parts: tuple[Part, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    classes: int | None = None

    @property
    def count(self) -> int:
        """Samples in all batches together."""
        return sum(len(part.rows) for part in self.parts)

    @property
    def batch_count(self) -> int:
        """How many batches there are."""
        return sum(-(-len(part.rows) // self.batch_size) for part in self.parts)

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return all(part.labels is not None for part in self.parts)

    def batches(self, numbers: range | None = None) -> Iterator[Batch]:
        """All samples, `batch_size` at a time; the last batch of a part may be smaller.

        Args:
            numbers: only these batches, counted from 0; no others are read.
        """
        places = [(part, start) for part in self.parts for start in range(0, len(part.rows), self.batch_size)]
        for part, start in places if numbers is None else places[numbers.start : numbers.stop]:
            yield self._taken(part.arrays, part.labels, part.rows[start : start + self.batch_size])

    def split(self, batch: Batch, size: int) -> Iterator[Batch]:
        """A batch in parts of at most `size` samples; as it is, if it has no more."""
        if batch.count <= size:
            yield batch
            return
        for start in range(0, batch.count, size):
            yield self.only(batch, np.arange(start, min(start + size, batch.count)))

    def only(self, batch: Batch, rows: npt.NDArray[np.int64]) -> Batch:
        """The samples `rows` of a batch, in that order."""
        return self._taken(batch.feeds, batch.labels, rows)

    def _taken(
        self, arrays: Mapping[str, Array | Lazy], labels: Array | None, rows: npt.NDArray[np.int64]
    ) -> Batch:
        feeds = {want.name: want.take(arrays[want.name], rows) for want in self.inputs}
        return Batch(feeds, None if labels is None else labels[rows], len(rows))

    def hold(self, most: int) -> int:
        """Keep at most so many bytes more of what is read on demand; how many that may be."""
        lazy = (array for part in self.parts for array in part.arrays.values() if isinstance(array, Lazy))
        return max((array.hold(most) for array in lazy), default=0)  # arrays of one source share them

    def array(self, name: str) -> Array:
        """All samples of the input `name` in one array of the model's dtype.

        Raises:
            DataError: no such input, or samples of different shapes.
        """
        want = next((want for want in self.inputs if want.name == name), None)
        if want is None or len(self.parts) > 1:
            problem = "no such input" if want is None else "its samples differ in shape; use batches()"
            raise DataError(f"no single array for the input '{name}': {problem}")
        return want.take(self.parts[0].arrays[name], self.parts[0].rows)


def try_batch(session: Session, data: Data) -> dict[str, Array]:
    """Run the first batch and return its outputs, so that data a graph cannot take is said to be that.

    Raises:
        DataError: the model does not run on it; the message ends with onnxruntime's.
    """
    batch = next(data.batches())
    try:
        return session.run(batch.feeds)
    except ModelError as error:
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in batch.feeds.items())
        remedy = "give real data with --data" if data.synthetic else "check the symbolic sizes"
        raise DataError(f"{data.description}: they do not run as {shapes}; {remedy} ({error})") from error
