"""Bench: models side by side: latency, memory, load time, file size and MACs.

The models run in turns, one call each a round, so that whatever slows the machine down slows all of them;
speed-ups are medians of ratios within a round. Before every timed call stands one that is not timed: it puts
caches and threads back to where they are when the model runs alone. With CUDA a call includes the copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data import Data, Source, open_data, try_batch
from onnxprune.data.inputs import Input, fixed_batch, listed, wanted
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.footprint import Footprint, footprint
from onnxprune.layers import find_layers
from onnxprune.model import Model, load
from onnxprune.progress import Progress, Silent
from onnxprune.report.schema import BenchedModel, BenchReport, Latency, Spread
from onnxprune.report.versions import versions
from onnxprune.session import Array, Provider, Session

RUNS = 50
_WARM_UP = 5  # calls in which onnxruntime plans its memory
_PROCESSES = 3  # of which the median is taken for memory and load time

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Subject:
    """One model: the file as it is run, and its normal form, which only counts MACs and says the inputs."""

    path: Path
    model: Model
    inputs: tuple[Input, ...]

    @property
    def fixed(self) -> int | None:
        """The batch size it insists on."""
        return fixed_batch(self.inputs) or (1 if all(i.batch_axis is None for i in self.inputs) else None)


def bench(
    models: Sequence[str | Path],
    data: Source | None = None,
    *,
    batch_sizes: Sequence[int] = (1,),
    runs: int = RUNS,
    threads: int | None = None,
    provider: Provider = "auto",
    progress: Progress | None = None,
) -> BenchReport:
    """Measure ONNX files with the same inputs against the first of them.

    Args:
        models: files, the reference first.
        data: what to run on, its first samples, as for `compress`; noise if None.
        batch_sizes: samples a call. Where a model takes one size only, that one, which `notes` say.
        runs: rounds that are timed, each one call of every model.
        threads: onnxruntime's; one for each processor if None.
        provider: where onnxruntime runs.
        progress: told of every round.

    Memory is that of the largest batch.

    Raises:
        UsageError: no model, or a number below 1.
        ModelError: a file that is not a model, cannot be run, or has other inputs than the reference.
        DataError: data that does not fit, or is less than a batch.
    """
    _check(models, batch_sizes, runs, threads)
    subjects = [_subject(Path(path)) for path in models]
    sizes, notes = _sizes(subjects, batch_sizes)
    opened = _open(data, subjects[0], max(sizes), progress)
    feeds = {size: first_samples(opened, size) for size in sizes}
    sessions = [Session(s.path, provider, threads=threads or 0, alternating=True) for s in subjects]
    for session in sessions:
        try_batch(session, replace(opened, batch_size=max(sizes)))
    times = {}
    with (progress or Silent()).stage("bench", runs * len(sizes)) as advance:
        for size in sizes:
            times[size] = _times(sessions, feeds[size], runs, advance)
    held = [_footprint(subject.path, feeds[max(sizes)], provider, threads or 0) for subject in subjects]
    return BenchReport(
        models=tuple(
            BenchedModel(
                model=str(subject.path),
                bytes=subject.model.bytes,
                macs=macs(subject.model),
                load_seconds=cost.load_seconds,
                peak_bytes=cost.peak_bytes,
                latency=tuple(_latency(size, times[size], index) for size in sizes),
            )
            for index, (subject, cost) in enumerate(zip(subjects, held, strict=True))
        ),
        data=opened.description,
        runs=runs,
        threads=sessions[0].threads,
        provider=sessions[0].provider,
        notes=(*notes, *opened.notes),
        versions=versions(),
    )


def race(
    reference: ir.Model | Path,
    model: ir.Model,
    feeds: Mapping[str, Array],
    *,
    runs: int = RUNS,
    threads: int | None = None,
    provider: Provider = "auto",
) -> Spread:
    """How many times as fast as `reference` a model runs: rounds of one call of each, in turns."""
    pair = [Session(m, provider, threads=threads or 0, alternating=True) for m in (reference, model)]
    with Silent().stage("race", runs) as advance:
        seconds = _times(pair, feeds, runs, advance)
    return _spread(seconds[:, 0] / seconds[:, 1])


def macs(model: Model) -> int | None:
    """Multiply-accumulates of all layers for one sample; None where a shape is symbolic."""
    counts = [layer.macs for layer in find_layers(model.graph)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _check(models: Sequence[str | Path], batch_sizes: Sequence[int], runs: int, threads: int | None) -> None:
    if not models or not batch_sizes:
        raise UsageError(f"no {'batch size' if models else 'model'} to measure; name at least one")
    numbers = [("batch", size) for size in batch_sizes] + [("runs", runs), ("threads", threads or 1)]
    for option, number in numbers:
        if number < 1:
            raise UsageError(f"--{option} {number}: must be 1 or more")


def _subject(path: Path) -> _Subject:
    model = load(path)
    return _Subject(path, model, tuple(wanted(model.graph.inputs)))


def _sizes(subjects: Sequence[_Subject], asked: Sequence[int]) -> tuple[list[int], list[str]]:
    """The batch sizes all models take, and a note where they are not those asked for.

    Raises:
        ModelError: the models differ in their inputs, or insist on different batch sizes.
    """
    reference = subjects[0]
    for other in subjects[1:]:
        if _form(other.inputs) != _form(reference.inputs):
            raise ModelError(
                f"{other.path} takes {listed(other.inputs)} and {reference.path} {listed(reference.inputs)}; "
                "compare models with the same inputs"
            )
    insisting = [subject for subject in subjects if subject.fixed is not None]
    for other in insisting[1:]:
        if other.fixed != insisting[0].fixed:
            raise ModelError(
                f"{other.path} takes batches of exactly {other.fixed} and {insisting[0].path} of "
                f"{insisting[0].fixed}; export them again with the same batch size"
            )
    if not insisting or insisting[0].fixed is None or set(asked) == {insisting[0].fixed}:
        return list(dict.fromkeys(asked)), []
    path, size = insisting[0].path, insisting[0].fixed
    return [size], [f"{path} takes batches of exactly {size}: no other size is measured"]


def _form(inputs: Sequence[Input]) -> dict[str, Any]:
    """Inputs but for their order, the batch size and the names of symbolic sizes."""
    return {i.name: (i.dtype, i.sizes and [_size(i, axis) for axis in range(len(i.sizes))]) for i in inputs}


def _size(wanted: Input, axis: int) -> int | str | None:
    assert wanted.sizes is not None
    size = wanted.sizes[axis]
    return "batch" if axis == wanted.batch_axis else size if isinstance(size, int) else None


def _open(data: Source | None, reference: _Subject, largest: int, progress: Progress | None) -> Data:
    """The data to take samples from; noise is as much as the largest batch needs."""
    samples = largest if data is None else None
    inputs = reference.model.graph.inputs
    return open_data(data, inputs, samples=samples, batch_size=largest, progress=progress)


def first_samples(data: Data, size: int) -> Mapping[str, Array]:
    """The first `size` samples of one shape.

    Raises:
        DataError: there are not as many.
    """
    batches = replace(data, batch_size=size).batches()
    batch = next((batch for batch in batches if batch.count == size), None)
    if batch is None:
        raise DataError(f"{data.description}: too few for --batch {size}; give more data or a smaller batch")
    return batch.feeds


def _times(
    sessions: Sequence[Session], feeds: Mapping[str, Array], runs: int, advance: Callable[[int], None]
) -> Seconds:
    """Seconds of every call [runs, sessions], the sessions in turns."""
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(feeds)
    seconds = np.empty((runs, len(sessions)))
    for row in seconds:
        for index, session in enumerate(sessions):
            session.run(feeds)
            start = time.perf_counter()
            session.run(feeds)
            row[index] = time.perf_counter() - start
        advance(1)
    return seconds


def _footprint(path: Path, feeds: Mapping[str, Array], provider: Provider, threads: int) -> Footprint:
    found = [footprint(path, feeds, provider=provider, threads=threads) for _ in range(_PROCESSES)]
    return Footprint(median(f.load_seconds for f in found), round(median(f.peak_bytes for f in found)))


def _latency(size: int, seconds: Seconds, index: int) -> Latency:
    speedup = _spread(seconds[:, 0] / seconds[:, index]) if index else None
    return Latency(batch=size, seconds=_spread(seconds[:, index]), speedup=speedup)


def _spread(values: Seconds) -> Spread:
    p10, middle, p90 = (float(value) for value in np.percentile(values, [10, 50, 90]))
    return Spread(p10=p10, median=middle, p90=p90)
