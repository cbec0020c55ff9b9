"""Drops: as small as a drop of one point allows, and at half the weights, each model in its own metric.

One row: `python -m benchmarks.max_drop --only magika_standard_v3_3 --recipe 'max-drop 0.01'`.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.common import Case, Column, Row, Table, compressed_by_command, run
from benchmarks.subjects import SUBJECTS

TABLE = Table(
    "max_drop",
    "As small as one point allows, by the command line",
    "`max-drop 0.01`: `onnxprune compress --data … --eval … --max-drop 0.01`; `found` is the ratio it ends "
    "at. It searches on one half of the evaluation data; figures are of the other half, which the search "
    "never saw, with the 95 % interval of the drop where the metric is a share of samples. `drafts` and "
    "`in full` count candidates. `ratio 0.5`: half of the weights, figures of all evaluation data. Nothing "
    "here is calibrated on. Metrics against labels: top1, exact_match. The others are against the dense "
    "model, which then has 100: agreement (equal classes), map_overlap (intersection over union of the "
    "pixels called text), note_overlap (F-measure of active note frames), speech_agreement (1 − mean "
    "distance of probabilities). Text is rendered; sound is synthetic. silero has no gradients (If) and "
    "takes `--saliency wanda --allocation uniform`, as its refusal says.",
    (
        Column("metric", "metric"),
        Column("before", "before, %", ".2f"),
        Column("after", "after, %", ".2f"),
        Column("lost", "points lost", ".2f"),
        Column("interval", "95 %"),
        Column("count", "of samples", "d"),
        Column("found", "found", "g"),
        Column("drafts", "drafts", "d"),
        Column("in_full", "in full", "d"),
        Column("bytes_before", "bytes before", ",d"),
        Column("bytes_after", "bytes after", ",d"),
        Column("compressing", "seconds", ".0f"),
        Column("processor", "processor seconds", ".0f"),
    ),
)

_METRICS = {
    "ch_PP-OCRv4_rec_infer": "exact_match",
    "ch_PP-OCRv4_det_infer": "map_overlap",
    "basic_pitch_nmp": "note_overlap",
    "silero_vad_16k_op15": "speech_agreement",
}
_UNLABELLED = ("ch_ppocr_mobile_v2.0_cls_infer",)  # its own answers are what pruning is to keep
_RECIPES = {"silero_vad_16k_op15": ("--saliency", "wanda", "--allocation", "uniform")}
_OWN = (
    "ch_PP-OCRv4_rec_infer",
    "ch_PP-OCRv4_det_infer",
    "ch_ppocr_mobile_v2.0_cls_infer",
    "magika_standard_v3_3",
    "basic_pitch_nmp",
    "silero_vad_16k_op15",
    "silero_vad_op18_ifless",
)

_DROP, _HALF = "max-drop 0.01", "ratio 0.5"
CASES = [
    *(Case(net, 1, _DROP) for net in ("resnet20_cifar10", "resnet56_cifar10", "mobilenetv2_100_224", *_OWN)),
    *(Case(net, 0.5, _HALF) for net in _OWN),
]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One compression, in a process of its own."""
    subject = SUBJECTS[case.model]
    split = subject.split(options.seed)
    evaluation = dict(split.evaluation)
    if case.model in _UNLABELLED:
        del evaluation["labels"]
    given = [*_RECIPES.get(case.model, ()), "--seed", str(options.seed)]
    if case.model in _METRICS:
        given += ["--metric", f"benchmarks.own_metrics:{_METRICS[case.model]}"]
    with TemporaryDirectory() as folder:
        files = {"--data": split.calibration, "--eval": evaluation}
        for option, arrays in files.items():
            path = Path(folder) / f"{option[2:]}.npz"
            np.savez(path, **arrays)
            given += [option, str(path)]
        flag, value = case.recipe.split()
        before = _processor()
        report = compressed_by_command(subject.path, f"--{flag}", value, *given)
    return {**_figures(report), "processor": _processor() - before, "data": split.words}


def _processor() -> float:
    """Processor seconds of all processes started so far that have ended: wall time is a busy machine's."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _figures(report: Row) -> Row:
    change = report["metric"]
    row: Row = {
        "metric": change["name"],
        "before": 100 * change["before"],
        "after": 100 * change["after"],
        "lost": 100 * (change["before"] - change["after"]),
        "bytes_before": report["bytes_before"],
        "bytes_after": report["bytes_after"],
        "kept": report["kept_ratio"],
        "compressing": sum(report["seconds"].values()),
        "stages": report["seconds"],
        "warnings": report["warnings"],
    }
    goal: dict[str, Any] | None = report["goal"]
    if goal is None:
        return row
    interval = goal["interval"] and " … ".join(f"{100 * end:.2f}" for end in goal["interval"])
    drafts = sum(trial["draft"] for trial in goal["trials"])
    return row | {
        "interval": interval,
        "count": int(goal["measured"].split()[0].replace(",", "")),
        "found": goal["value"],
        "drafts": drafts,
        "in_full": len(goal["trials"]) - drafts,
        "trials": goal["trials"],
        "measured": goal["measured"],
    }


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
