"""Gate: finished models held to limits: bytes, MACs, a figure of merit, and by how much it fell.

What stands in a file is measured again, not believed from a report; nothing is measured that no limit asks
for: bytes need neither onnxruntime nor data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxprune.aims import Limits, resolve_limits
from onnxprune.bench import macs
from onnxprune.data import BATCH_SIZE, Data, Source, open_data
from onnxprune.errors import ModelError, UsageError
from onnxprune.evaluate import ROUNDING, Measured, measure
from onnxprune.intervals import Interval, wilson
from onnxprune.metric import Metric, own_metric
from onnxprune.model import files, load, read
from onnxprune.progress import Progress
from onnxprune.report.schema import GateCheck, GatedModel, GateReport
from onnxprune.report.versions import versions
from onnxprune.session import Provider

_COMPARED = ("max_share", "max_drop")  # with the dense model

Measure = Callable[[Path], Measured]


def gate(
    models: Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    data: Source | None = None,
    metric: Metric | str | None = None,
    provider: Provider = "auto",
    batch_size: int = BATCH_SIZE,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **limits: Any,
) -> GateReport:
    """Check ONNX files against limits. A limit that does not hold is no error: the report says so.

    Args:
        models: the files, with the same inputs if anything is to be measured on data.
        reference: the dense model; `max_share` and `max_drop` need it.
        data: what to measure on, as for `evaluate`; noise if None.
        metric: a figure of merit of one's own (see `onnxprune.metric`).
        provider: where onnxruntime runs, as are the next three for `evaluate`.
        batch_size: samples run at once.
        samples: how many of the data, drawn by `seed`; all if None.
        seed: of that drawing.
        progress: told of every long stage.
        limits: fields of `options.Limits`, such as max_bytes=2_000_000.

    Raises:
        UsageError: no limit, no model, or a limit that needs a reference and has none.
        ModelError: a file that is not a model, cannot be run, or whose MACs nobody knows.
        DataError: data that does not fit, or has neither labels nor a reference to compare with.
    """
    chosen = resolve_limits(**limits)
    _check(models, reference, chosen)
    own_metric(metric)  # said before any work
    paths, dense_path = [Path(path) for path in models], None if reference is None else Path(reference)
    opened = None
    if chosen.measured:
        inputs = read(dense_path or paths[0]).graph.inputs
        opened = open_data(data, inputs, batch_size=batch_size, samples=samples, seed=seed, progress=progress)
    measured = _measuring(opened, reference=dense_path, metric=metric, provider=provider, progress=progress)
    dense = None if dense_path is None else _Subject(dense_path, measured, None)
    subjects = [_Subject(path, measured, dense) for path in paths]
    gated = [_gated(subject, chosen) for subject in subjects]
    figures = subjects[0].measured.metrics if opened is not None else None
    return GateReport(
        held=all(check.held for model in gated for check in model.checks),
        models=tuple(gated),
        reference=None if reference is None else str(reference),
        metric=None if figures is None else figures.primary,
        data=None if figures is None else figures.data,
        notes=() if figures is None else figures.notes,
        versions=versions(),
    )


def _check(models: Sequence[str | Path], reference: str | Path | None, limits: Limits) -> None:
    if not models:
        raise UsageError("no model to check; name at least one")
    compared = [name for name in _COMPARED if name in limits.given]
    if compared and reference is None:
        flag = "--" + compared[0].replace("_", "-")
        raise UsageError(f"{flag} compares with the dense model; give it with --reference")


def _measuring(data: Data | None, **how: Any) -> Measure:
    def measured(path: Path) -> Measured:
        assert data is not None  # else no limit asks for this
        return measure(path, data, **how)

    return measured


class _Subject:
    """One model, of which is measured what is asked for, once; `dense` is what it is compared with."""

    def __init__(self, path: Path, measured: Measure, dense: _Subject | None) -> None:
        self.path, self._measure, self._dense = path, measured, dense
        self.bytes = sum(file.stat().st_size for file in files(path))

    @property
    def dense(self) -> _Subject:
        assert self._dense is not None  # `_check` saw to it
        return self._dense

    @cached_property
    def measured(self) -> Measured:
        return self._measure(self.path)

    @cached_property
    def macs(self) -> int:
        known = macs(load(self.path))
        if known is None:
            raise ModelError(
                f"{self.path}: its MACs are unknown, since an input has a symbolic size; export it with "
                "fixed sizes, or leave --max-macs out"
            )
        return known

    @property
    def interval(self) -> Interval | None:
        """Of the figure of merit."""
        return None if self.measured.hits is None else wilson(self.measured.hits)


#: By limit: what it is about, and the interval of that.
_READINGS: dict[str, Callable[[_Subject], tuple[float, Interval | None]]] = {
    "max_bytes": lambda subject: (subject.bytes, None),
    "max_share": lambda subject: (subject.bytes / subject.dense.bytes, None),
    "max_macs": lambda subject: (subject.macs, None),
    "min_metric": lambda subject: (subject.measured.metrics.value, subject.interval),
    "max_drop": lambda subject: (
        subject.measured.drop(subject.dense.measured),
        subject.measured.drop_interval(subject.dense.measured),
    ),
}


def _gated(subject: _Subject, limits: Limits) -> GatedModel:
    checks = tuple(_checked(subject, name, limit) for name, limit in limits.given.items())
    return GatedModel(model=str(subject.path), bytes=subject.bytes, checks=checks)


def _checked(subject: _Subject, name: str, limit: float) -> GateCheck:
    value, interval = _READINGS[name](subject)
    beyond = limit - value if name.startswith("min_") else value - limit
    return GateCheck(name=name, limit=limit, measured=value, held=beyond <= ROUNDING, interval=interval)
