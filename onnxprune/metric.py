"""Metrics of one's own: a Python function over all samples of the evaluation data, higher is better.

    def word_accuracy(outputs, labels, reference):
        pairs = zip(outputs["softmax"], labels, strict=True)
        return np.mean([decode(y) == word for batch, words in pairs for y, word in zip(batch, words)])

`outputs` has a list by output name, with one array a batch in the data's order, since detections or texts
need not have one shape; `labels` is such a list too, None where the data has none; `reference` has the dense
model's outputs, None where there is no such model. A metric is asked once, at the end, and may keep nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import PluginError, UsageError
from onnxprune.plugins import load_object, user_code

Array = npt.NDArray[Any]
Lists = dict[str, list[Array]]
Metric = Callable[[Lists, list[Array] | None, Lists | None], float]


@dataclass
class Record:
    """What a metric sees, batch by batch; all of it stays in memory."""

    outputs: Lists = field(default_factory=dict)
    labels: list[Array] = field(default_factory=list)
    reference: Lists = field(default_factory=dict)

    def add(
        self, outputs: Mapping[str, Array], labels: Array | None, wanted: Mapping[str, Array] | None
    ) -> None:
        """Append one batch."""
        for lists, arrays in ((self.outputs, outputs), (self.reference, wanted or {})):
            for name, array in arrays.items():
                lists.setdefault(name, []).append(array)
        if labels is not None:
            self.labels.append(labels)


@dataclass(frozen=True)
class OwnMetric:
    """A function with the name that reports use."""

    name: str
    function: Metric

    def value(self, record: Record) -> float:
        """What the function gives.

        Raises:
            PluginError: it fails, or gives no finite number.
        """
        what = f"the metric {self.name!r}"
        with user_code(what):
            given: Any = self.function(record.outputs, record.labels or None, record.reference or None)
        try:
            value = float(given)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{what} gave {type(given).__name__}, not a number; return a float") from error
        if not np.isfinite(value):
            raise PluginError(f"{what} gave {value}; return a finite number, higher being better")
        return value


def own_metric(given: Metric | str | None) -> OwnMetric | None:
    """The metric that is given, as a function or by its name `module:function`.

    Raises:
        UsageError: nothing of that name, or it cannot be called.
        PluginError: its module fails when it is imported.
    """
    if given is None:
        return None
    function = load_object(given) if isinstance(given, str) else given
    if not callable(function):
        raise UsageError(f"--metric {given!r} is a {type(function).__name__}; name a function")
    name = given.partition(":")[2] if isinstance(given, str) else getattr(given, "__name__", "metric")
    return OwnMetric(name, function)
