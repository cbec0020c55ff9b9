"""What a run was asked to do: one validated, immutable record, saved in plans, reports and output files.

`Options` are those of a compression, `Goal` what it has to keep to instead of a given size, `Training` those
of fine-tuning, `Limits` what a gate holds a finished model to. `RECIPES` names whole sets of options; what is
given explicitly beside a recipe overrides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from onnxprune.errors import UsageError

Saliency = Literal["mlprune", "obd", "wanda", "magnitude", "random"]
Surgeon = Literal["none", "paper", "joint", "sweep"]
Allocation = Literal["global", "uniform", "balanced"]
Loss = Literal["auto", "cross-entropy", "gaussian"]
Average = Literal["mean", "exponential"]
Packing = Literal["fp32", "fp16", "none"]
Scope = Literal["global", "layer"]
Score = Literal["kfac", "norm", "rand", "rs", "abs_rs", "mrs", "abs_mrs"]
Replacement = Literal["linear", "mean", "zero"]
Heads = Literal["whole", "narrow"]
Axis = Literal["ratio", "units", "macs"]
Fraction = Annotated[float, Field(gt=0, le=1)]
R = TypeVar("R", bound=BaseModel)


class Options(BaseModel):
    """Options of one compression; field by field what the command line's flags say.

    `units` below 1 is the fraction to remove, as in the Mean Replacement paper, from 1 on a number of units;
    `ratio` and `macs` are what to keep. `min_units` 0 lets a branch behind a residual sum lose all of its
    units; where it is not given, one unit stays, but with `round_to` "auto" such a branch may go where no
    narrower one is faster. `units_of` has the fraction to remove
    where layers of a name make the units. `heads`: whole ones are removed, or each is made narrower.
    `positions`: of every sample at most so many are taken into statistics of layers' inputs.
    `memory`: bytes of resident memory to stay within (docs/how-it-works.md says what that holds for).
    `regrow`: weights that pruning leaves on dead units are given to living ones, so that the ratio is exact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: Fraction | None = None
    units: Annotated[float, Field(gt=0)] | None = None
    macs: Fraction | None = None
    recipe: str = "default"
    saliency: Saliency = "mlprune"
    normalise: bool = False
    surgeon: Surgeon = "sweep"
    allocation: Allocation = "balanced"
    steps: Annotated[int, Field(ge=1, le=64)] = 1
    pattern: str | None = None
    scope: Scope = "global"
    score: Score = "kfac"
    replace: Replacement = "linear"
    min_units: Annotated[int, Field(ge=0)] | None = None
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    units_of: dict[str, Annotated[float, Field(ge=0, lt=1)]] = {}
    approximate: bool = False
    heads: Heads = "whole"
    floors: dict[str, Fraction] = {}
    exclude: tuple[str, ...] = ()
    damping: Annotated[float, Field(gt=0)] = 1e-4
    loss: Loss = "auto"
    average: Average = "mean"
    samples: Annotated[int, Field(ge=1)] | None = None
    positions: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    memory: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    pack: Packing = "fp32"
    regrow: bool = True

    @property
    def prunes_weights(self) -> bool:
        """Whether single weights are to go."""
        return self.ratio is not None or self.pattern is not None

    @property
    def prunes_units(self) -> bool:
        """Whether whole units are to go."""
        return self.units is not None or self.macs is not None

    @model_validator(mode="after")
    def _targets(self) -> Self:
        for first, second in (("ratio", "pattern"), ("units", "macs")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise ValueError(f"give one of --{first} and --{second}, not both")
        if not (self.prunes_weights or self.prunes_units):
            raise ValueError(
                "say what to prune: --ratio or --pattern for weights, --units or --macs for units, or a goal "
                "such as --max-drop"
            )
        if self.macs is not None and self.scope == "layer":
            raise ValueError("--macs is a budget of the whole network; use --scope global, or --units")
        return self

    @field_validator("units")
    @classmethod
    def _whole_units(cls, value: float | None) -> float | None:
        if value is not None and value >= 1 and not value.is_integer():
            raise ValueError("a fraction to remove below 1, or a whole number of units")
        return value

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            kept, _, group = value.partition(":")
            if not (kept.isdigit() and group.isdigit() and 0 < int(kept) < int(group)):
                raise ValueError("a pattern is N:M with 0 < N < M, such as 2:4")
        return value


class Training(BaseModel):
    """Options of one fine-tuning; field by field what the command line's flags say.

    `objective`: what is learned, "auto" being distillation where there is a teacher and labels otherwise;
    `balance` is the share of distillation in "both". `milestones` are places in the run, from 0 to 1, where a
    step schedule multiplies the rate by `gamma`. `masks`: whether zeros of layers' weights stay zero.
    `holdout`: the share of the samples that is chosen by instead of trained on, without evaluation data.
    `shift` and `mirror`: images are moved by up to so many pixels, and half of them mirrored, at every step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1)] = 10
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: Fraction = 0.1
    objective: Literal["auto", "labels", "distillation", "both"] = "auto"
    temperature: Annotated[float, Field(gt=0)] = 2.0
    balance: Fraction = 0.5
    loss: Loss = "auto"
    masks: Literal["zeros", "none"] = "zeros"
    freeze: tuple[str, ...] = ()
    clip: Annotated[float, Field(gt=0)] | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[int, Field(ge=0)] = 0
    mirror: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    pack: Packing = "fp32"

    @property
    def moves(self) -> bool:
        """Whether images are others at every step."""
        return self.shift > 0 or self.mirror


GOALS = ("max_drop", "max_bytes", "speedup")
_AXES: dict[str, tuple[Axis, ...]] = {
    "max_drop": ("ratio", "units", "macs"),
    "max_bytes": ("ratio", "units", "macs"),
    "speedup": ("macs", "units"),
}  # what may be searched, the first by default
_EXCLUDED = {"ratio": ("ratio", "pattern"), "units": ("units", "macs"), "macs": ("units", "macs")}


class Goal(BaseModel):
    """What a compression has to keep to: one of `max_drop`, `max_bytes` and `speedup`; `search` is varied.

    `max_drop` is in the metric's own unit: 0.005 of accuracy is half a point. `max_bytes` are those of the
    file. `speedup` is how many times as fast onnxruntime is to run `batch` samples with `threads`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_drop: Annotated[float, Field(ge=0)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    speedup: Annotated[float, Field(gt=1)] | None = None
    search: Axis | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None

    @property
    def name(self) -> str:
        """Which goal it is."""
        return next(name for name in GOALS if getattr(self, name) is not None)

    @property
    def axis(self) -> Axis:
        """The field of `Options` that is searched."""
        return self.search or _AXES[self.name][0]

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in GOALS if getattr(self, name) is not None]
        if len(given) != 1:
            flags = ["--" + name.replace("_", "-") for name in given or GOALS]
            raise ValueError(f"give one of {', '.join(flags[:-1])} and {flags[-1]}, one at a time")
        for name in ("batch", "threads"):
            if getattr(self, name) is not None and self.speedup is None:
                raise ValueError(f"--{name} goes with --speedup, which is measured")
        if self.axis not in _AXES[self.name]:
            raise ValueError("zeros do not make onnxruntime faster; with --speedup search units or macs")
        return self


class Limits(BaseModel):
    """What a finished model has to keep to; each is checked by itself.

    `max_bytes` are those of the file and its external data, `max_share` the same as a share of the dense
    model's; `max_macs` are multiply-accumulates of one sample. `min_metric` and `max_drop` are in the
    metric's own unit, `max_drop` against the dense model on the same samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: Annotated[int, Field(ge=1)] | None = None
    max_share: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_macs: Annotated[int, Field(ge=1)] | None = None
    min_metric: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @property
    def given(self) -> dict[str, float]:
        """The limits there are, by name."""
        return {name: value for name, value in self if value is not None}

    @property
    def measured(self) -> bool:
        """Whether one of them is about a figure of merit, which is measured on data."""
        return self.min_metric is not None or self.max_drop is not None


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "mlprune": {
        "saliency": "mlprune",
        "normalise": True,
        "surgeon": "paper",
        "allocation": "global",
        "steps": 1,
        "average": "exponential",
        "regrow": False,
    },
    "mean-replacement": {"score": "abs_mrs", "replace": "mean", "scope": "layer"},
    "magnitude": {"saliency": "magnitude", "surgeon": "none", "allocation": "global", "steps": 1},
    "wanda": {"saliency": "wanda", "surgeon": "none", "allocation": "uniform", "steps": 1},
}


def resolve(recipe: str = "default", **given: Any) -> Options:
    """The options of `recipe`, overridden by every keyword that is not None.

    Raises:
        UsageError: an unknown recipe or an invalid value; says which and what is allowed.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    chosen = {**RECIPES[recipe], **{key: value for key, value in given.items() if value is not None}}
    return _valid(Options, {"recipe": recipe, **chosen})


def resolve_goal(given: Mapping[str, Any], options: Mapping[str, Any]) -> Goal | None:
    """The goal that `given` names, None if it names none; `options` are all others that were given.

    Raises:
        UsageError: two goals, a value that cannot be, or an option that says what the goal searches.
    """
    found = {name: value for name, value in given.items() if value is not None}
    if not found:
        return None
    if not found.keys() & set(GOALS):
        raise UsageError(f"--{next(iter(found))} goes with --max-drop, --max-bytes or --speedup")
    goal = _valid(Goal, found)
    for name in _EXCLUDED[goal.axis]:
        if options.get(name) is not None:
            goal_flag = "--" + goal.name.replace("_", "-")
            other = "" if goal.search else "; --search varies another"
            raise UsageError(f"{goal_flag} finds --{goal.axis} itself; leave --{name} out{other}")
    return goal


def resolve_training(**given: Any) -> Training:
    """The options of a fine-tuning: every keyword that is not None, the rest as it stands.

    Raises:
        UsageError: an invalid value; says which and what is allowed.
    """
    return _valid(Training, {key: value for key, value in given.items() if value is not None})


def resolve_limits(**given: Any) -> Limits:
    """The limits of a gate: every keyword that is not None.

    Raises:
        UsageError: an invalid value, or nothing to check.
    """
    limits = _valid(Limits, {key: value for key, value in given.items() if value is not None})
    if not limits.given:
        flags = ["--" + name.replace("_", "-") for name in Limits.model_fields]
        raise UsageError(f"no limit to check; give one of {', '.join(flags[:-1])} and {flags[-1]}")
    return limits


def _valid(record: type[R], values: dict[str, Any]) -> R:
    try:
        return record(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        where = f"--{option} {first['input']!r}: " if option else ""
        raise UsageError(where + first["msg"].removeprefix("Value error, ")) from error
