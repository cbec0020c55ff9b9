"""The one tree of errors; the command line prints their message and exits with `exit_code`.

    OnnxPruneError               1
    ├── UsageError               2   an option or argument that cannot be meant
    ├── ModelError               1   the file is not a model we can read, run or change
    │   └── GradientError        1   no gradient reaches any layer asked for
    ├── DataError                1   calibration or evaluation data that does not fit the model
    ├── StatisticsError          1   NaN or Inf, statistics of another model, files that cannot be merged
    ├── BudgetError              1   a ratio, pattern, floor or goal that cannot be met
    ├── MemoryBudgetError        1   what does not fit into the memory allowed
    ├── GateError                3   a finished model does not keep to its limits
    ├── OutputError              1   the result could not be written or did not survive its check
    ├── TrainingError            1   training diverged, cannot start, or a checkpoint of another run
    ├── PluginError              1   code of the user's own that failed, or gave what is not wanted
    └── RuntimeUnavailableError  1   no onnxruntime, torch or matplotlib, or no such provider or device

A message names the node, op and shape it is about, and ends with the remedy.
"""

from __future__ import annotations


class OnnxPruneError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class UsageError(OnnxPruneError):
    """An option or argument that cannot be meant; the command line exits with 2."""

    exit_code = 2


class ModelError(OnnxPruneError):
    """The file is not an ONNX model we can read, run or change."""


class GradientError(ModelError):
    """No gradient reaches any of the layers asked for; names the ops that stop it."""


class DataError(OnnxPruneError):
    """Calibration or evaluation data that does not fit the model."""


class StatisticsError(OnnxPruneError):
    """Statistics that hold NaN or Inf, belong to another model, or cannot be merged."""


class BudgetError(OnnxPruneError):
    """A ratio, pattern, floor or goal that cannot be met."""


class MemoryBudgetError(OnnxPruneError):
    """A layer, or the model itself, that does not fit into the memory allowed."""


class GateError(OnnxPruneError):
    """A finished model does not keep to its limits; the command line exits with 3, so that CI can tell."""

    exit_code = 3


class OutputError(OnnxPruneError):
    """The result could not be written, or did not survive its check."""


class TrainingError(OnnxPruneError):
    """Training diverged, cannot start, or was to go on from a checkpoint that is not its own."""


class PluginError(OnnxPruneError):
    """Code of the user's own that failed, or gave what is not wanted."""


class RuntimeUnavailableError(OnnxPruneError):
    """onnxruntime, torch or matplotlib, or the execution provider or device asked for, is not there."""
