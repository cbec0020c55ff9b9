"""The findings of the Mean Replacement paper as tables, from the penalties that `measure` wrote.

    python -m benchmarks.reproduce.mean_replacement small_conv

Writes `results/mean_replacement_<net>.json` and `.md`. A measurement is one setting (network, moment, layers,
amount); each has a penalty for every method (score and replacement).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.common import RESULTS, environment
from benchmarks.reproduce.measure import AMOUNTS, read
from benchmarks.reproduce.penalties import SCORES, Method

Array = npt.NDArray[np.float64]
Images = Literal["train", "test"]


class Key(NamedTuple):
    """One measurement."""

    seed: int
    step: int
    layers: str
    amount: float


Measurements = Mapping[Key, Mapping[Method, float]]

PAPER = tuple(Method(score, replaced) for replaced in ("mean", "zero") for score in SCORES)  # type: ignore[arg-type]
OURS = (Method("kfac", "mean"), Method("kfac", "zero"))
_SAME = 1e-6  # nats; float32 sums differ by less where a dead unit goes
_TAUS = (0.1, 0.25, 0.5)


def measurements(rows: Iterable[Mapping[str, str]], images: Images, part: str = "paper") -> Measurements:
    """The penalties of one part, in nats, on the images of the scores or on test images."""
    found: dict[Key, dict[Method, float]] = {}
    for row in rows:
        if row["part"] == part and row[images]:
            key = Key(int(row["seed"]), int(row["step"]), row["layers"], float(row["amount"]))
            method = Method(row["score"], row["replace"])  # type: ignore[arg-type]
            found.setdefault(key, {})[method] = float(row[images])
    return found


def differences(found: Measurements, one: Method, other: Method) -> Array:
    """Penalty of `one` less that of `other`, for every measurement that has both."""
    return np.array([each[one] - each[other] for each in found.values() if one in each and other in each])


def shares(difference: Array) -> tuple[float, float, float]:
    """Shares of the differences that are below, equal to and above zero."""
    lower, higher = difference < -_SAME, difference > _SAME
    return float(lower.mean()), float((~lower & ~higher).mean()), float(higher.mean())


def normalised(found: Measurements, method: Method, among: Sequence[Method] = PAPER) -> Array:
    """Where the penalty of `method` lies between the least (0) and the largest (1) of `among`.

    Measurements in which all are equal say nothing, and are left out. A method not in `among` may be below 0.
    """
    places = []
    for each in found.values():
        low, high = min(each[m] for m in among), max(each[m] for m in among)
        if high - low > _SAME:
            places.append((each[method] - low) / (high - low))
    return np.array(places)


def profile(found: Measurements, method: Method, taus: Array) -> Array:
    """Fig. 5: the share of measurements with a penalty of at most min + τ (max − min), by τ."""
    places = normalised(found, method)
    shares_: Array = (places[:, None] <= taus[None, :] + 1e-12).mean(axis=0)
    return shares_


def area(found: Measurements, method: Method) -> float:
    """Area under the profile, τ from 0 to 1: 1 where the method always has the least penalty."""
    return float(1 - np.clip(normalised(found, method), 0, 1).mean())


def by_seed(found: Measurements) -> list[Measurements]:
    """The measurements of each seed."""
    seeds = sorted({key.seed for key in found})
    return [{key: each for key, each in found.items() if key.seed == seed} for seed in seeds]


def by_step(found: Measurements) -> list[tuple[int, Measurements]]:
    """The measurements at each moment."""
    steps = sorted({key.step for key in found})
    return [(step, {key: each for key, each in found.items() if key.step == step}) for step in steps]


# -- what the paper says -------------------------------------------------------------------------------------

Claim = Callable[[Measurements], bool]


def claims() -> dict[str, Claim]:
    """Each statement of the paper as a test of measurements; it is put to every seed by itself."""
    stated: dict[str, Claim] = {}
    for score in SCORES:
        stated[f"mean replacement lowers the penalty of {score} (more often than not, and on average)"] = (
            lambda found, score=score: _lowers(found, score)
        )
    for replaced in ("mean", "zero"):
        stated[f"with {replaced}: abs_mrs and abs_rs have the two best profiles"] = (
            lambda found, replaced=replaced: set(ranked(found, replaced)[:2]) == {"abs_mrs", "abs_rs"}
        )
        for score in ("mrs", "rs"):
            stated[f"with {replaced}: {score} has a worse profile than rand"] = (
                lambda found, replaced=replaced, score=score: (
                    area(found, Method(score, replaced)) < area(found, Method("rand", replaced))
                )
            )
            stated[f"with {replaced}: {score} costs more than rand on average"] = (
                lambda found, replaced=replaced, score=score: bool(
                    differences(found, Method(score, replaced), Method("rand", replaced)).mean() > 0
                )
            )
    return stated


def ranked(found: Measurements, replaced: str) -> list[str]:
    """The paper's scores by area under the profile, best first."""
    return sorted(SCORES, key=lambda score: -area(found, Method(score, replaced)))  # type: ignore[arg-type]


def _lowers(found: Measurements, score: Any) -> bool:
    difference = differences(found, Method(score, "mean"), Method(score, "zero"))
    lower, _, higher = shares(difference)
    return bool(lower > higher and difference.mean() < 0)


# -- tables --------------------------------------------------------------------------------------------------


def tables(found: Measurements) -> dict[str, list[dict[str, Any]]]:
    """All tables, a list of rows each."""
    seeds = by_seed(found)
    methods = (*PAPER, *OURS)
    present = [method for method in methods if all(method in each for each in found.values())]
    return {
        "Mean against zero": [_against_zero(found, score) for score in (*SCORES, "kfac")],
        "Mean penalty, nats": [_by_amount(found, method) for method in present],
        "Performance profile": sorted(
            (_profile_row(found, method, seeds) for method in present), key=lambda row: -row["area"]
        ),
        "Area under the profile during training, with mean": [
            {"step": step} | {score: area(each, Method(score, "mean")) for score in (*SCORES, "kfac")}
            for step, each in by_step(found)
        ],
        "Against rand": [
            _against_rand(found, Method(score, replaced))  # type: ignore[arg-type]
            for replaced in ("mean", "zero")
            for score in (*SCORES, "kfac")
            if score != "rand"
        ],
        "The paper's findings": [
            {"finding": text, "all": _verdict(claim(found)), "seeds": _count([claim(s) for s in seeds])}
            for text, claim in claims().items()
        ],
    }


def least_squares(rows: Iterable[Mapping[str, str]], images: Images) -> list[dict[str, Any]]:
    """Mean penalties of `linear` beside zero and mean, over the settings that have all three."""
    rows = list(rows)
    fitted, others = measurements(rows, images, "linear"), measurements(rows, images)
    both = {key: {**others[key], **each} for key, each in fitted.items() if key in others}
    amounts = sorted({key.amount for key in both})
    return [
        {"score": score, "replace": replaced, "measurements": len(both)}
        | {
            f"{amount:g}": float(np.mean([each[method] for k, each in both.items() if k.amount == amount]))
            for amount in amounts
        }
        for score in (("kfac", "abs_mrs") if both else ())
        for replaced in ("zero", "mean", "linear")
        for method in [Method(score, replaced)]  # type: ignore[arg-type]
    ]


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


def _count(held: Sequence[bool]) -> str:
    return f"{sum(held)} of {len(held)}"


def _against_zero(found: Measurements, score: Any) -> dict[str, Any]:
    difference = differences(found, Method(score, "mean"), Method(score, "zero"))
    lower, equal, higher = shares(difference)
    decided = lower / (lower + higher) if lower + higher else float("nan")
    row = {"score": score, "mean lower": lower, "equal": equal, "zero lower": higher}
    return row | {"mean lower, equal left out": decided, "mean − zero, nats": float(difference.mean())}


def _by_amount(found: Measurements, method: Method) -> dict[str, Any]:
    row: dict[str, Any] = {"score": method.score, "replace": method.replace}
    for amount in AMOUNTS:
        values = [each[method] for key, each in found.items() if key.amount == amount]
        row["1 unit" if amount == 1 else f"{amount:g}"] = float(np.mean(values)) if values else None
    return row | {"median of all": float(np.median([each[method] for each in found.values()]))}


def _profile_row(found: Measurements, method: Method, seeds: Sequence[Measurements]) -> dict[str, Any]:
    areas = [area(seed, method) for seed in seeds]
    at = dict(zip((f"τ = {tau:g}" for tau in _TAUS), profile(found, method, np.array(_TAUS)), strict=True))
    row = {"score": method.score, "replace": method.replace, "area": area(found, method)}
    return (
        row | {"least by seed": min(areas), "most by seed": max(areas)} | {k: float(v) for k, v in at.items()}
    )


def _against_rand(found: Measurements, method: Method) -> dict[str, Any]:
    difference = differences(found, method, Method("rand", method.replace))
    lower, equal, higher = shares(difference)
    row = {"score": method.score, "replace": method.replace, "lower than rand": lower, "equal": equal}
    return row | {"higher": higher, "score − rand, nats": float(difference.mean())}


# -- files ---------------------------------------------------------------------------------------------------


def markdown(title: str, words: str, parts: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """The tables for people: a section for each set of images, a table for each list of rows."""
    lines = [f"# {title}", "", words, ""]
    for images, listed in parts.items():
        for heading, rows in listed.items():
            if not rows:
                continue
            lines += [f"## {heading} ({images} images)", "", _line(rows[0]), _line("---" for _ in rows[0])]
            lines += [*(_line(map(_cell, row.values())) for row in rows), ""]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def words(found: Measurements, net: str) -> str:
    """What was measured, and what is smaller than in the paper."""
    seeds, steps = sorted({key.seed for key in found}), sorted({key.step for key in found})
    return (
        f"{len(found)} measurements: {len(seeds)} seeds, steps {', '.join(map(str, steps))}, five choices "
        "of layers, six amounts (settings in which no unit goes are left out); 12 methods of the paper "
        "and `kfac`. A penalty is the cross-entropy after removal − before, in nats; no fine-tuning. "
        f"Scaled down from the paper: {net} is trained for 5 epochs instead of 60 (batches of 64, SGD with "
        "momentum, learning rate 0.01 to 0 along a cosine), measured at 3 moments at most instead of every "
        "250 steps, 4 seeds instead of 8, 500 test images for seed 0 alone, CIFAR-10 recompressed as JPEG. "
        "`equal`: within 1e-6 nats, as where only dead units go. The profile is Fig. 5's: τ is where the "
        "penalty lies between the least and the largest of the 12 methods; `area` is 1 for a method that "
        "is always best."
    )


def main() -> None:
    """Read the penalties, write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("small_conv", "medium_conv"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = read(args.results / f"penalties_{args.net}.csv")
    parts = {}
    for images in ("train", "test"):
        parts[images] = tables(measurements(rows, images))  # type: ignore[arg-type]
        parts[images]["Least squares, end of training"] = least_squares(rows, images)  # type: ignore[arg-type]
    about = words(measurements(rows, "train"), args.net)
    title = f"Mean Replacement Pruning: the paper's findings on {args.net}"
    record = {"title": title, "method": about, "environment": environment(0, 1000), "tables": parts}
    path = args.results / f"mean_replacement_{args.net}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(markdown(title, about, parts))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
