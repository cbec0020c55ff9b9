"""Worker: gathers statistics of the shards it is given, in a process of its own; an actor of Ray."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version

from onnxprune.cluster.parcel import Parcel, unpack
from onnxprune.data import Data
from onnxprune.errors import DataError, RuntimeUnavailableError
from onnxprune.statistics import Gathering, Statistics
from onnxprune.statistics.collect import Collector, Partial


class Worker:
    """A collector of one part of the data, on so many `threads`; `folder` is where relative paths begin."""

    def __init__(self, parcel: Parcel, data: Data, how: Gathering, threads: int, folder: str) -> None:
        self._parcel, self._data, self._how, self._threads = parcel, data, how, threads
        with suppress(OSError):  # not there on this machine: a file that is wanted is then missed by its name
            os.chdir(folder)

    @cached_property
    def _collector(self) -> Collector:
        return Collector(unpack(self._parcel), self._data, self._how, threads=self._threads)

    def start(self, wanted: str) -> None:
        """Say that it is there.

        Raises:
            RuntimeUnavailableError: onnxprune is not the version `wanted` on this machine.
        """
        if version("onnxprune") != wanted:
            raise RuntimeUnavailableError(
                f"a worker has onnxprune {version('onnxprune')}, this is {wanted}; install the same version "
                "on every machine of the cluster"
            )

    def gather(self, numbers: range) -> int:
        """Add up these batches; the samples in them.

        Raises:
            OnnxPruneError: as `statistics.collect`.
        """
        samples = 0
        try:
            for number, batch in zip(numbers, self._data.batches(numbers), strict=True):
                self._collector.add(number, batch)
                samples += batch.count
        except OSError as error:
            raise DataError(
                f"{error.filename or 'data'}: {error.strerror or error}, on a worker; files of data must lie "
                "where every machine of the cluster finds them under the same path"
            ) from error
        return samples

    def partial(self) -> Partial:
        """What it has gathered."""
        return self._collector.partial()

    def take_in(self, other: Partial) -> None:
        """Add what another one has gathered."""
        self._collector.take_in(other)

    def statistics(self, sha256: str) -> Statistics:
        """The statistics of what it has gathered, of the model with that hash.

        Raises:
            StatisticsError: NaN or Inf.
        """
        return self._collector.statistics(sha256)
