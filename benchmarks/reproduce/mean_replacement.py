"""The findings of the Mean Replacement paper as tables, from the penalties that `measure` wrote.

    python -m benchmarks.reproduce.mean_replacement small_conv

Writes `results/mean_replacement_<net>.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, Row, environment, environment_line
from benchmarks.reproduce.analysis import (
    OURS,
    PAPER,
    Images,
    Measurements,
    area,
    by_seed,
    by_step,
    differences,
    measurements,
    profile,
    shares,
)
from benchmarks.reproduce.measure import AMOUNTS, read
from benchmarks.reproduce.penalties import SCORES, Method

_TAUS = (0.1, 0.25, 0.5)

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


Tables = Mapping[str, Sequence[Mapping[str, Any]]]


def markdown(title: str, words: str, parts: Mapping[str, Tables], about: Row) -> str:
    """The tables for people: a section for each set of images, a table for each list of rows."""
    lines = [f"# {title}", "", words, ""]
    for images, listed in parts.items():
        for heading, rows in listed.items():
            if not rows:
                continue
            lines += [f"## {heading} ({images} images)", "", _line(rows[0]), _line("---" for _ in rows[0])]
            lines += [*(_line(map(_cell, row.values())) for row in rows), ""]
    return "\n".join([*lines, f"Tables made: {environment_line(about)}", ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def words(found: Measurements, net: str) -> str:
    """What was measured, and what is smaller than in the paper."""
    moments: dict[int, set[int]] = {}
    for key in found:
        moments.setdefault(key.seed, set()).add(key.step)
    steps = "; ".join(
        f"seed {seed}: {', '.join(map(str, sorted(moments[seed])))}" for seed in sorted(moments)
    )
    return (
        f"{len(found)} measurements, at training steps ({steps}) of 3,910 in all: five choices of layers, "
        "six amounts (settings in which no unit goes are left out); 12 methods of the paper and `kfac`. "
        "A penalty is the cross-entropy after removal − before, in nats; no fine-tuning. "
        f"Scaled down from the paper: {net} is trained for 5 epochs instead of 60 (batches of 64, SGD with "
        "momentum, learning rate 0.01 to 0 along a cosine), measured at 2 or 3 moments instead of every "
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
    made = environment(0, None)
    record = {"title": title, "method": about, "environment": made, "tables": parts}
    path = args.results / f"mean_replacement_{args.net}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(markdown(title, about, parts, made))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
