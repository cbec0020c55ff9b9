"""Options of the commands, made from the records of `onnxprune.options`: one description of every option.

An option that is not given is None, so that the recipe's value shows through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel

from onnxprune.aims import Goal, Limits
from onnxprune.errors import UsageError
from onnxprune.options import RECIPES, Axis, Options, Training, resolve_training

Decorator = Callable[[Any], Any]

NOISE = "noise"  # the data source that is none
SOURCE = f"a file, a folder, module:object, or '{NOISE}'"
REPORT = "Write the result as a page to look at (HTML); needs `pip install 'onnxprune[report]'`."
FILE = click.Path(path_type=Path, readable=False)  # whether it can be read, the library says better
MODEL = click.argument("model", type=FILE)
PREPROCESS = click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help="How images become numbers: imagenet, tensorflow, unit, none, or a YAML or JSON file.",
)
_METRIC = "A figure of merit of your own, higher being better; see `onnxprune.metric`."
METRIC = click.option("--metric", metavar="MODULE:FUNCTION", help=_METRIC)

_RAY = "Share work out on a Ray cluster, or start one here; needs `pip install 'onnxprune[ray]'`."
_WORKERS = "Processes on the cluster.  [default: one a processor if local, else one a machine or GPU]"


def fraction(text: str) -> float:
    """0.04 or 4%; what range it may have, the library says."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a fraction such as 0.04 or 4%") from None


def multiple(text: str) -> int | str:
    """A whole number, or `auto`."""
    if text == "auto" or text.isdecimal():
        return text if text == "auto" else int(text)
    raise click.BadParameter(f"{text!r} is neither a whole number nor auto")


def size(text: str) -> int:
    """2000000, 500kB, 2MB or 1.5MiB as bytes."""
    return _scaled(text, "b?", "a size such as 500kB, 2MB or 1.5MiB")


def count(text: str) -> int:
    """300000000, 300M or 1.5G as a number."""
    return _scaled(text, "", "a number such as 500k, 300M or 1.5G")


def _scaled(text: str, unit: str, what: str) -> int:
    number = r"\s*([0-9]+(?:\.[0-9]+)?)\s*"
    found = re.fullmatch(rf"{number}(?:([kmg])(i?))?{unit}\s*", text, re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{text!r} is not {what}")
    digits, prefix, binary = found.groups()
    power = " kmg".index(prefix.lower()) if prefix else 0
    return int(float(digits) * (1024 if binary else 1000) ** power)


def floor(text: str) -> tuple[str, float]:
    """`PATTERN=FRACTION` as a pair; the pattern may hold further equals signs."""
    pattern, _, share = text.rpartition("=")
    if not pattern:
        raise click.BadParameter(f"{text!r} is not PATTERN=FRACTION such as '*head*=0.5'")
    return pattern, fraction(share)


def ratios(text: str) -> tuple[float, ...]:
    """`0.5,25%,0.1` as fractions."""
    return tuple(fraction(part) for part in text.split(","))


def setting(text: str) -> tuple[str, str]:
    """`NAME=VALUE` as a pair."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE such as learning-rate=0.01")
    return name.replace("-", "_"), value


def tuning(
    epochs: int | None,
    schedule: tuple[float, ...] | None,
    data: str | None,
    settings: Sequence[tuple[str, str]],
    statistics: Sequence[Path],
    goal: Goal | None,
) -> dict[str, Any] | None:
    """What `compress` was told about fine-tuning, as keywords for `staged`; None if it is not to.

    Raises:
        UsageError: an option that has no meaning here, or a value that `finetune` does not take.
    """
    if epochs is None:
        for flag, value in (("--schedule", schedule), ("--train-data", data), ("--training", settings)):
            if value:
                raise UsageError(f"{flag} is for fine-tuning; say for how many epochs with --finetune")
        return None
    if goal is not None:
        flag = "--" + goal.name.replace("_", "-")
        raise UsageError(f"{flag} prunes once, without --finetune; tune the result with `onnxprune finetune`")
    if statistics:
        raise UsageError("--stats goes with pruning once; with --finetune they are gathered at every stage")
    training = {"epochs": epochs, **dict(settings)}
    resolve_training(**training)
    return {"training": training, "schedule": schedule or ()}


# Help of every field of Options; names, choices and defaults come from Options itself.
_HELP = {
    "ratio": "Share of all parameters to keep, by zeroing weights: 0.04 or 4%.",
    "units": "Units (channels, neurons, heads) to remove: a fraction such as 0.5, or a number.",
    "macs": "Share of all multiply-accumulates to keep, by removing units: 0.5 or 50%.",
    "recipe": "Named set of options; options given beside it win.",
    "saliency": "What a weight is worth.",
    "normalise": "Divide importances by their layer's sum, as the MLPrune paper does.",
    "surgeon": "How the kept weights make up for the ones cut.",
    "allocation": "How the ratio is shared among the layers.",
    "steps": "Prune in so many geometric steps, statistics redone at each.",
    "pattern": "Keep N of every M weights in a row, such as 2:4.",
    "scope": "Units by one ranking over the network, or the same fraction in every layer.",
    "score": "What a unit is worth; the lowest go.",
    "replace": "What takes a removed unit's place: the units kept, its mean, or nothing.",
    "min_units": "Keep at least so many units of a layer, else 1; with 0 branches of residual sums may go.",
    "round_to": "Keep multiples of so many channels; auto measures which numbers this machine runs fast.",
    "units_of": "Fraction of units to remove where a layer of this name makes them; may be repeated.",
    "approximate": "Also cut axes that a LayerNorm or GroupNorm goes over; its statistics then change.",
    "heads": "Remove whole attention heads, or narrow each by the same dimensions.",
    "regrow": "Give weights left on dead units to living ones, so that the ratio is exact.",
    "floors": "Least share that layers of this name keep, '*head*=0.5'; may be repeated.",
    "exclude": "Leave layers of this name alone ('*head*'); may be repeated.",
    "damping": "Tikhonov damping of the curvature.",
    "loss": "Loss whose curvature counts; auto sees it from the output.",
    "average": "How statistics are averaged over batches.",
    "samples": "Use so many samples, drawn by the seed; all if not given.",
    "positions": "Take at most so many positions of each sample into statistics of inputs; all if not given.",
    "batch_size": "Samples run at once, at most.",
    "memory": "Stay within so much memory (4GiB): more passes over the data, and files for what is large.",
    "seed": "Seed of everything random.",
    "provider": "Where onnxruntime runs.",
    "pack": "How pruned weights are stored.",
    "epochs": "Passes over the data.",
    "optimizer": "Who moves the weights.",
    "learning_rate": "Learning rate at the start.",
    "holdout": "Share of the samples to choose the best epoch by instead of training on it, without --eval.",
    "shift": "Move images by up to so many pixels, each in its own way at every step.",
    "mirror": "Mirror half of the images at every step, left to right.",
    "momentum": "Momentum of sgd, or the first beta of adamw.",
    "weight_decay": "Weight decay of matrices and kernels; biases and scales have none.",
    "schedule": "How the learning rate falls.",
    "milestones": "Where a step schedule steps down, as a share of the run; may be repeated.",
    "gamma": "What a step multiplies the learning rate by.",
    "objective": "What to learn; auto is distillation with a teacher, labels without.",
    "temperature": "Softens what the teacher says.",
    "balance": "Share of distillation in --objective both.",
    "masks": "Whether zeros in layers stay zero, or are trained like any weight.",
    "freeze": "Leave weights of this name as they are ('*head*'); may be repeated.",
    "clip": "Largest norm of the gradient; longer ones are shortened.",
    "device": "Where torch runs.",
    "precision": "bfloat16 is autocast: weights and losses stay float32.",
    "max_drop": "Prune until the metric has fallen by so much, in its own unit: 0.005 of accuracy.",
    "max_bytes": "Prune until the file has so many bytes: 500kB, 2MB, 1.5MiB.",
    "speedup": "Prune units until onnxruntime runs so many times as fast, measured.",
    "search": "What to vary for it.  [default: ratio, with --speedup macs]",
    "batch": "Samples a call, with --speedup.  [default: 1]",
    "threads": "Threads of onnxruntime, with --speedup.  [default: one a processor]",
}
# Where a field of Training says something else than one of Options.
_TRAINING_HELP = {
    "loss": "What the outputs are; auto sees it from how they end.",
    "batch_size": "Samples a step, of all processes together.",
    "samples": "Train on so many samples, drawn by the seed; all if not given.",
}
# Where a field of Limits says something else than one of Goal.
_LIMITS_HELP = {
    "max_bytes": "Most bytes of the file, external data included: 500kB, 2MB, 1.5MiB.",
    "max_share": "Most bytes as a share of the reference's: 0.5 or 50%.",
    "max_macs": "Most multiply-accumulates of one sample: 300M, 1.5G.",
    "min_metric": "Least figure of merit, in its own unit: 0.97 or 97% of accuracy.",
    "max_drop": "Most that it may be below the reference's, in its own unit: 0.005 of accuracy.",
}
# What click cannot take from the annotation of the field.
_SETTINGS: dict[str, dict[str, Any]] = {
    "ratio": {"type": fraction, "metavar": "FRACTION"},
    "recipe": {"type": click.Choice(list(RECIPES))},
    "units": {"type": fraction, "metavar": "FRACTION|COUNT"},
    "macs": {"type": fraction, "metavar": "FRACTION"},
    "pattern": {"type": str, "metavar": "N:M"},
    "min_units": {"type": int},
    "round_to": {"type": multiple, "metavar": "COUNT|auto"},
    "units_of": {"type": floor, "metavar": "PATTERN=FRACTION", "multiple": True},
    "floors": {"type": floor, "metavar": "PATTERN=FRACTION", "multiple": True},
    "exclude": {"type": str, "metavar": "PATTERN", "multiple": True},
    "samples": {"type": int},
    "positions": {"type": int},
    "holdout": {"type": fraction, "metavar": "FRACTION"},
    "milestones": {"type": fraction, "metavar": "FRACTION", "multiple": True},
    "gamma": {"type": fraction, "metavar": "FRACTION"},
    "balance": {"type": fraction, "metavar": "FRACTION"},
    "freeze": {"type": str, "metavar": "PATTERN", "multiple": True},
    "clip": {"type": float},
    "shift": {"type": int},
    "max_drop": {"type": fraction, "metavar": "DROP"},
    "max_bytes": {"type": size, "metavar": "SIZE"},
    "memory": {"type": size, "metavar": "SIZE"},
    "max_share": {"type": fraction, "metavar": "FRACTION"},
    "max_macs": {"type": count, "metavar": "COUNT"},
    "min_metric": {"type": fraction, "metavar": "VALUE"},
    "speedup": {"type": float, "metavar": "TIMES"},
    "search": {"type": click.Choice(get_args(Axis))},
    "batch": {"type": int},
    "threads": {"type": int},
}
_OWN_HELP: dict[type[BaseModel], dict[str, str]] = {Training: _TRAINING_HELP, Limits: _LIMITS_HELP}
_FLAGS = {"floors": "--floor", "milestones": "--milestone"}
_TABLES = ("floors", "units_of")
_COMMON: dict[str, dict[str, Any]] = {
    "--json": {"type": FILE, "metavar": "FILE", "help": "Write the result as JSON."},
    "--quiet": {"is_flag": True, "help": "No tables, notes and bars; warnings and errors only."},
}

COMPRESSION = tuple(Options.model_fields)
CALIBRATION = ("loss", "average", "samples", "positions", "batch_size", "memory", "seed", "provider")
GOAL = tuple(Goal.model_fields)
SWEEP = tuple(name for name in COMPRESSION if name not in ("recipe", "pattern", *get_args(Axis)))
TRAINING = tuple(Training.model_fields)
LIMITS = tuple(Limits.model_fields)
EVALUATION = ("samples", "batch_size", "seed", "provider")


def cluster(command: Any) -> Any:
    """The options that share work out."""
    command = click.option("--workers", type=int, help=_WORKERS)(command)
    return click.option("--ray", metavar="ADDRESS|local", help=_RAY)(command)


def fields(*names: str, record: type[BaseModel] = Options, common: bool = True) -> Decorator:
    """The options for these fields of `record`, and with `common` those that every command has."""

    def decorate(command: Any) -> Any:
        for flag, settings in reversed(_COMMON.items() if common else ()):
            command = click.option(flag, **settings)(command)
        for name in reversed(names):
            command = _option(name, record)(command)
        return command

    return decorate


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as keywords for the library."""
    found = {name: value for name, value in options.items() if value not in (None, ())}
    return {name: dict(value) if name in _TABLES else value for name, value in found.items()}


def _option(name: str, record: type[BaseModel]) -> Decorator:
    field = record.model_fields[name]
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    words = _HELP | _OWN_HELP.get(record, {})
    settings: dict[str, Any] = {"help": words[name], "default": None, "required": field.is_required()}
    if get_origin(field.annotation) is Literal:
        settings["type"] = click.Choice(get_args(field.annotation))
    elif field.annotation is bool:
        flag += f"/--no-{name}"
    else:
        settings["type"] = field.annotation
    settings |= _SETTINGS.get(name, {})
    if not field.is_required() and field.default not in (None, (), {}):
        settings["help"] += f"  [default: {_shown(field.default)}]"
    return click.option(flag, name, **settings)


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)
