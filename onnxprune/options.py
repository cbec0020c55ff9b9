"""What a run was asked to do: one validated, immutable record, saved in plans, reports and output files.

`Options` are those of a compression, `Training` those of fine-tuning. `RECIPES` names whole sets of options;
what is given explicitly beside a recipe overrides it. What a result has to keep to is in `aims`.
"""

from __future__ import annotations

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
    return valid(Options, {"recipe": recipe, **chosen})


def resolve_training(**given: Any) -> Training:
    """The options of a fine-tuning: every keyword that is not None, the rest as it stands.

    Raises:
        UsageError: an invalid value; says which and what is allowed.
    """
    return valid(Training, {key: value for key, value in given.items() if value is not None})


def valid(record: type[R], values: dict[str, Any]) -> R:
    """A record of these values.

    Raises:
        UsageError: one that it does not take; says which.
    """
    try:
        return record(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        where = f"--{option} {first['input']!r}: " if option else ""
        raise UsageError(where + first["msg"].removeprefix("Value error, ")) from error
