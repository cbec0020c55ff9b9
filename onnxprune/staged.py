"""Staged: prune, fine-tune, prune further, along a schedule of ratios (MLPrune, §5 and appendix A).

    dense → 50 % → tuned → 25 % → tuned → … → 4 % → tuned

Every stage starts from the tuned model of the one before, with statistics gathered anew; every ratio counts
the parameters of the dense model. Units go in the first stage. The dense model is the teacher of all stages,
unless labels are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.data import Source, open_data, repeatable
from onnxprune.errors import UsageError
from onnxprune.evaluate import evaluate
from onnxprune.layers import find_layers
from onnxprune.metric import Metric
from onnxprune.model import Model, load, parameter_count, parameters
from onnxprune.pipeline import Result, compress
from onnxprune.progress import Progress
from onnxprune.report import schema
from onnxprune.report.compression import layer_row

if TYPE_CHECKING:
    from onnxprune.finetune import Result as Tuned

_UNITS = ("units", "macs")


def compress_in_stages(
    model: str | Path | Model,
    data: Source | None = None,
    *,
    training: Mapping[str, Any],
    training_data: Source | None = None,
    schedule: Sequence[float] = (),
    output: str | Path | None = None,
    evaluation: Source | None = None,
    metric: Metric | str | None = None,
    recipe: str = "default",
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Prune and fine-tune in turns; needs torch.

    Args:
        model: an ONNX file, or one loaded with `onnxprune.load`.
        data: calibration data, as for `compress`.
        training: options of `onnxprune.finetune.train`, such as {"epochs": 10}, the same in every stage.
        training_data: what to fine-tune on, the calibration data if None.
        schedule: ratios to keep, falling; `options["ratio"]` alone if empty.
        output: where to write; nothing is written if None.
        evaluation: measured before and after every stage; never chosen by.
        metric: a figure of merit of one's own, as for `compress`.
        recipe: one of `options.RECIPES`.
        progress: told of every long stage.
        options: fields of `options.Options`.

    Raises:
        OnnxPruneError: one of its kinds, with a message for a person.
    """
    from onnxprune.finetune import train

    ratios = _ratios(schedule, options.get("ratio"))
    data, training_data, evaluation = map(repeatable, (data, training_data, evaluation))
    dense = model if isinstance(model, Model) else load(model)
    teacher = None if training.get("objective") == "labels" else dense
    training = {"seed": options.get("seed", 0), **training}
    given: dict[str, Any] = {
        "recipe": recipe,
        "evaluation": evaluation,
        "metric": metric,
        "progress": progress,
    }
    now, stages = dense, list[_Stage]()
    for place, ratio in enumerate(ratios):
        start = time.perf_counter()
        own = {name: value for name, value in options.items() if place == 0 or name not in _UNITS}
        if ratio is not None:
            own["ratio"] = _share(ratio, dense, now)
        pruned = compress(now, data, **given, **own)
        tuned = train(
            replace(now, ir=pruned.model),
            training_data if training_data is not None else data,
            teacher=teacher,
            output=output if place == len(ratios) - 1 else None,
            progress=progress,
            **training,
        )
        now = tuned.model
        stages.append(_Stage(ratio, pruned, tuned, time.perf_counter() - start))
        stages[-1].measure(dense, evaluation if evaluation is not None else data, metric, progress)
    return Result(_report(dense, stages, output), now.ir, stages[-1].pruned.plan)


def _ratios(schedule: Sequence[float], ratio: float | None) -> list[float | None]:
    if not schedule:
        return [ratio]
    if any(later >= earlier for earlier, later in pairwise(schedule)):
        raise UsageError(f"--schedule {','.join(f'{r:g}' for r in schedule)}: ratios must fall")
    if ratio is not None and ratio != schedule[-1]:
        raise UsageError(f"--schedule ends at {schedule[-1]:g} and --ratio says {ratio:g}; leave one out")
    return list(schedule)


def _share(ratio: float, dense: Model, now: Model) -> float:
    """Of the parameters that `now` has, the share that leaves `ratio` of those of `dense`, to one weight."""
    return min(1.0, (int(ratio * parameter_count(dense) + 1e-9) + 0.5) / parameter_count(now))


@dataclass
class _Stage:
    """One round of pruning and tuning; `after` is the metric of `pruned`'s report, of the tuned model."""

    ratio: float | None
    pruned: Result
    tuned: Tuned
    seconds: float
    after: float | None = None

    def measure(
        self, dense: Model, source: Source | None, metric: Metric | str | None, progress: Progress | None
    ) -> None:
        """Measure the tuned model on what the pruned one was measured on."""
        change, options = self.pruned.report.metric, self.pruned.report.options
        if source is None or change is None:
            return
        how = {"batch_size": options["batch_size"], "seed": options["seed"], "progress": progress}
        data = open_data(source, dense.graph.inputs, **how)
        how = {"reference": dense.ir, "metric": metric, "provider": options["provider"], "progress": progress}
        self.after = evaluate(self.tuned.model.ir, data, **how).values[change.name]

    def row(self, total: int, sizes: Mapping[str, int]) -> schema.StageRow:
        """What the report says of it; the dense model had `total` parameters, its layers' weights `sizes`."""
        metric = self.pruned.report.metric
        left = {
            layer.name: np.count_nonzero(layer.read()[0]) for layer in find_layers(self.tuned.model.graph)
        }
        return schema.StageRow(
            ratio=self.ratio,
            kept_ratio=_nonzero(self.tuned.model) / total,
            layers=tuple(left.get(name, 0) / size for name, size in sizes.items()),
            pruned=None if metric is None else metric.after,
            tuned=self.after,
            seconds=round(self.seconds, 3),
        )


def _nonzero(model: Model) -> int:
    return sum(int(np.count_nonzero(tensor.numpy())) for tensor in parameters(model).values())


def _report(dense: Model, stages: Sequence[_Stage], output: str | Path | None) -> schema.CompressionReport:
    """The report of all stages as of one compression: from the dense model to the last tuned one."""
    first, last, model = stages[0].pruned.report, stages[-1], stages[-1].tuned.model
    total = first.params_before
    before, after = ({layer.name: layer for layer in find_layers(of.graph)} for of in (dense, model))
    sizes = {row.name: before[row.name].size for row in first.layers}
    metric = first.metric
    if metric is not None and last.after is not None:
        metric = schema.MetricChange(name=metric.name, before=metric.before, after=last.after)
    return first.model_copy(
        update={
            "output": None if output is None else str(output),
            "kept_ratio": _nonzero(model) / total,
            "params_after": parameter_count(model),
            "nonzero_after": _nonzero(model),
            "macs_after": last.pruned.report.macs_after,
            "bytes_after": last.tuned.report.bytes_after,
            "metric": metric,
            "layers": tuple(
                layer_row(before[row.name], after.get(row.name), row.importance) for row in first.layers
            ),
            "stages": tuple(stage.row(total, sizes) for stage in stages),
            "seconds": {
                "prune": round(sum(stage.seconds - stage.tuned.report.seconds for stage in stages), 3),
                "fine-tune": round(sum(stage.tuned.report.seconds for stage in stages), 3),
            },
        }
    )
