"""What a result has to keep to: a compression to its `Goal`, instead of a size; a gate holds to `Limits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onnxprune.errors import UsageError
from onnxprune.options import Axis, valid

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
    goal = valid(Goal, found)
    for name in _EXCLUDED[goal.axis]:
        if options.get(name) is not None:
            goal_flag = "--" + goal.name.replace("_", "-")
            other = "" if goal.search else "; --search varies another"
            raise UsageError(f"{goal_flag} finds --{goal.axis} itself; leave --{name} out{other}")
    return goal


def resolve_limits(**given: Any) -> Limits:
    """The limits of a gate: every keyword that is not None.

    Raises:
        UsageError: an invalid value, or nothing to check.
    """
    limits = valid(Limits, {key: value for key, value in given.items() if value is not None})
    if not limits.given:
        flags = ["--" + name.replace("_", "-") for name in Limits.model_fields]
        raise UsageError(f"no limit to check; give one of {', '.join(flags[:-1])} and {flags[-1]}")
    return limits
