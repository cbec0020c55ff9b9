"""Files through other tools, before and after ours: what runs, what they keep, and pruning with quantisation.

    python -m benchmarks.other_tools --only resnet20_cifar10

A recipe is a chain of steps, each from file to file: `onnxsim`, `onnxslim` and `preprocess` (onnxruntime's,
for quantisation) simplify; `weights`, `units` and `2:4` are ours, `unpack` and `pack` too; `int8` is
onnxruntime's static quantisation. Wants onnxsim and onnxslim installed; a step that fails is a
row with its error. What two chains of one run begin with alike is done once.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

import onnxprune
from benchmarks.common import Case, Column, Row, Table, run
from benchmarks.subjects import SUBJECTS, Arrays, Split
from onnxprune.evaluate import evaluate

TABLE = Table(
    "other_tools",
    "Our files through other tools",
    "The steps of a recipe are done in turn. `kept` is what `weights` leaves of all parameters; `units` "
    "leaves half of the MACs. Zeros: their share in constant tensors of two axes or more of the last file. "
    "`int8`: onnxruntime's static quantisation, QDQ, weights by channels, calibrated on the images that we "
    "calibrate on, after `preprocess`. `fp16`: `weights`, with what is kept packed as float16. Nothing is "
    "trained; top-1 of 509 lossless CIFAR-10 test images, all of the MNIST test set, or 250 sample photos.",
    (
        Column("metric", "top-1, %", ".2f"),
        Column("bytes", "bytes", ",d"),
        Column("gzip", "bytes, gzip", ",d"),
        Column("zeros", "zeros, %", ".1f"),
        Column("nodes", "nodes", ",d"),
    ),
)

_SIMPLIFIERS = ("onnxsim", "onnxslim", "preprocess")
_AROUND = [
    *(f"{tool}, weights" for tool in _SIMPLIFIERS),
    *(f"weights, {tool}" for tool in _SIMPLIFIERS),
    *(f"weights, unpack, {tool}" for tool in _SIMPLIFIERS),
    *(f"{before}, units, {after}" for before, after in product(_SIMPLIFIERS, repeat=2)),
]
_INT8 = [
    "dense",
    "int8",
    "weights",
    "weights, unpack, int8",
    "units",
    "units, int8",
    "units, weights, unpack, int8",
]
CASES = [
    *(
        Case(net, ratio, recipe)
        for net, ratio in (("resnet20_cifar10", 0.25), ("lenet_5", 0.1))
        for recipe in _AROUND
    ),
    *(
        Case(net, ratio, recipe)
        for net, ratio in (
            ("resnet20_cifar10", 0.25),
            ("resnet20_cifar10", 0.5),
            ("mobilenetv2_100_224", 0.5),
        )
        for recipe in _INT8
    ),
    *(  # the smallest file that loses at most a point
        Case(net, ratio, recipe)
        for net, ratios in (("resnet20_cifar10", (0.25, 0.2, 0.175)), ("mobilenetv2_100_224", (0.85,)))
        for ratio in ratios
        for recipe in ("weights", "weights, unpack, int8", "fp16")
        if ratio != 0.25 or recipe == "fp16"
    ),
]


_MADE: dict[tuple[str, float, tuple[str, ...]], bytes] = {}


@dataclass
class Workshop:
    """Files that the steps make, one after the other."""

    folder: Path
    split: Split
    ratio: float

    def onnxsim(self, source: Path, target: Path) -> None:
        """Its `simplify`, with its check."""
        import onnxsim

        model, same = onnxsim.simplify(onnx.load(source))
        if not same:
            raise RuntimeError("onnxsim says that its result differs")
        onnx.save(model, target)

    def onnxslim(self, source: Path, target: Path) -> None:
        """Its `slim`."""
        import onnxslim

        onnxslim.slim(str(source), str(target))

    def preprocess(self, source: Path, target: Path) -> None:
        """Shape inference and optimisation before quantisation."""
        from onnxruntime.quantization import quant_pre_process

        quant_pre_process(str(source), str(target))

    def int8(self, source: Path, target: Path) -> None:
        """Static quantisation after `preprocess`."""
        from onnxruntime.quantization import QuantFormat, quantize_static

        ready = self.folder / "ready.onnx"
        self.preprocess(source, ready)
        name = onnx.load(ready, load_external_data=False).graph.input[0].name
        reader = _Reader(name, self.split.calibration)
        quantize_static(str(ready), str(target), reader, quant_format=QuantFormat.QDQ, per_channel=True)

    def ours(self, source: Path, target: Path, **options: Any) -> None:
        """Our compression."""
        onnxprune.compress(source, self.split.calibration["x"], output=target, **options)

    def unpack(self, source: Path, target: Path) -> None:
        """Our packed weights made dense."""
        onnxprune.unpack(source, target)

    def pack(self, source: Path, target: Path) -> None:
        """Weights with zeros packed, int8 ones too."""
        onnxprune.pack(source, target)

    @property
    def steps(self) -> dict[str, Callable[[Path, Path], None]]:
        """By name."""
        own = {name: getattr(self, name) for name in (*_SIMPLIFIERS, "int8", "unpack", "pack")}
        return own | {
            "weights": partial(self.ours, ratio=self.ratio),
            "fp16": partial(self.ours, ratio=self.ratio, pack="fp16"),
            "units": partial(self.ours, macs=0.5),
            "2:4": partial(self.ours, pattern="2:4"),
        }

    def made(self, case: Case, source: Path) -> Path:
        """The last file of a case's chain, which begins with `source`.

        Raises:
            StepError: a step failed, for whatever reason another tool has.
        """
        names = () if case.recipe == "dense" else tuple(case.recipe.split(", "))
        for place, name in enumerate(names):
            target, key = self.folder / f"{place}.onnx", (case.model, case.ratio, names[: place + 1])
            try:
                if key not in _MADE:
                    self.steps[name](source, target)
                    _MADE[key] = target.read_bytes()
            except Exception as error:
                words = " ".join(str(error).split())[:160]
                raise StepError(f"{name}: {type(error).__name__}: {words}") from error
            target.write_bytes(_MADE[key])
            source = target
        return source


class StepError(Exception):
    """What another tool raised, which is its row."""


class _Reader:
    """onnxruntime's protocol of calibration data."""

    def __init__(self, name: str, arrays: Arrays) -> None:
        self._batches = ({name: part} for part in np.array_split(arrays["x"], max(1, len(arrays["x"]) // 25)))

    def get_next(self) -> Arrays | None:
        return next(self._batches, None)


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One chain."""
    subject = SUBJECTS[case.model]
    split = subject.split(options.seed)
    with TemporaryDirectory() as scratch:
        try:
            file = Workshop(Path(scratch), split, case.ratio).made(case, subject.path)
        except StepError as error:
            return {"error": str(error)}
        model, data = onnx.load(file), split.evaluation
        return {
            "metric": 100
            * evaluate(file, {model.graph.input[0].name: data["x"], "labels": data["labels"]}).value,
            "bytes": file.stat().st_size,
            "gzip": len(gzip.compress(file.read_bytes())),
            "zeros": 100 * _zeros(model),
            "nodes": len(model.graph.node),
        }


def _zeros(model: onnx.ModelProto) -> float:
    """Share of zeros in weights; those that are packed are no tensors of two axes."""
    weights = [
        onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) > 1
    ]
    total = sum(weight.size for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / max(total, 1)


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
