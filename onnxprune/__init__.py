"""onnxprune: smaller neural networks, straight from the ONNX file.

    import onnxprune
    result = onnxprune.compress("model.onnx", "calibration.npz", ratio=0.04, output="small.onnx")

The package in reading order, from the ground up; each module imports only those before it:

    errors, options, emit      errors, what was asked for (`aims`), graphs (`reading`, `edits`, `files`)
    comparable                 whether outputs before and after can be held against each other
    plugins, metric            code of the user's own; figures of merit (`intervals`: how far to trust them)
    model, normalise           ONNX files in, brought to one form (`tensors`: whole, and in their folder)
    session, data, progress    running graphs, calibration data
    im2col, layers             every linear node as s = W ā
    units                      what must be removed together
    gradient                   ∂L/∂s as ONNX nodes
    statistics                 means and Kronecker factors
    cluster                    work shared out by Ray, an optional extra (`onnxprune.cluster.connected`)
    solve, refit               least squares over kept weights (`threads`: side by side; `algebra`: on a GPU)
    saliency, allocation       scores, and how many weights each layer keeps (`shares`: how many units)
    plan, budget               decisions, as data
    passes, sweep              edits
    speeds, widths, cut        which units go; how wide layers may be, and what that costs on this machine
    task, ranking, regrowth    one pruning as data; weights by score, none of them on a dead unit
    prune                      a whole run
    prepared                   a model and its data, opened once, to be pruned many times
    figures, evaluate, report  how good it is (`footprint`: what memory it takes)
    finetune                   training in torch, an optional extra (`onnxprune.finetune.train`)
    pipeline, bench, cli       for callers and for the command line (`staged`: with training; `unpacking`)
    gate                       finished models held to limits, for CI
    goals, curve               pruning to a goal, and accuracy over size: many runs from one set of statistics
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune import cluster as cluster
    from onnxprune import finetune as finetune
    from onnxprune.curve import accuracy_curve as accuracy_curve
    from onnxprune.data import CalibrationReader as CalibrationReader
    from onnxprune.data import Images as Images
    from onnxprune.goals import compress_to_goal as compress_to_goal
    from onnxprune.model import load as load
    from onnxprune.pipeline import Result as Result
    from onnxprune.pipeline import calibrate as calibrate
    from onnxprune.pipeline import compress as compress
    from onnxprune.staged import compress_in_stages as compress_in_stages
    from onnxprune.unpacking import pack as pack
    from onnxprune.unpacking import unpack as unpack

_HOMES = {
    "CalibrationReader": "data",
    "Images": "data",
    "compress": "pipeline",
    "calibrate": "pipeline",
    "compress_in_stages": "staged",
    "compress_to_goal": "goals",
    "accuracy_curve": "curve",
    "Result": "pipeline",
    "load": "model",
    "pack": "unpacking",
    "unpack": "unpacking",
}

__all__ = [
    "CalibrationReader",
    "Images",
    "Result",
    "accuracy_curve",
    "calibrate",
    "cluster",
    "compress",
    "compress_in_stages",
    "compress_to_goal",
    "finetune",
    "load",
    "pack",
    "unpack",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts quickly."""
    from importlib import import_module

    if name in ("finetune", "cluster"):  # packages; torch and Ray need not be installed
        return import_module(f"onnxprune.{name}")
    if name in _HOMES:
        return getattr(import_module(f"onnxprune.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxprune' has no attribute {name!r}")
