"""Our files through OpenVINO: what it computes of them, and whether zeros are in what it writes.

    python -m benchmarks.with_openvino --only lenet_5

A recipe is a chain of steps as in `benchmarks.other_tools`; its last file is read, compiled and run by
OpenVINO in float32 on one thread, and saved in OpenVINO's own format. Wants openvino installed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import onnxprune
from benchmarks.common import Case, Column, Row, Table, run
from benchmarks.other_tools import Workshop
from benchmarks.subjects import SUBJECTS
from onnxprune.session import Session

TABLE = Table(
    "openvino",
    "Our files through OpenVINO",
    "The steps of a recipe are done in turn, as in `other_tools.md`; `2:4` keeps two of every four weights. "
    "Difference: of OpenVINO's outputs from onnxruntime's on the same images, relative to the largest. "
    "Constants: weights that are constants, bit for bit, of the file that `save_model` writes; packed ones "
    "are none there. Zeros: among all weights. ms: one image, one thread, the median of 50 calls of the "
    "compiled network. Nothing is trained; images as in `other_tools.md`.",
    (
        Column("onnxruntime", "top-1 onnxruntime, %", ".2f"),
        Column("openvino", "top-1 OpenVINO, %", ".2f"),
        Column("difference", "difference", ".1e"),
        Column("bytes", "bytes, ONNX", ",d"),
        Column("saved", "bytes, saved .bin", ",d"),
        Column("half", "in fp16", ",d"),
        Column("constants", "constants"),
        Column("zeros", "zeros, %", ".1f"),
        Column("ms", "ms", ".2f"),
    ),
)
_RECIPES = (
    *("dense", "weights", "weights, unpack", "weights, unpack, int8", "weights, unpack, int8, pack"),
    *("int8", "units", "units, weights, unpack", "2:4, unpack"),
)
CASES = [
    Case(net, ratio, recipe)
    for net, ratio in (("lenet_5", 0.1), ("resnet20_cifar10", 0.25))
    for recipe in _RECIPES
]
_CALLS = 50

Array = npt.NDArray[Any]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """One chain."""
    subject = SUBJECTS[case.model]
    split = subject.split(options.seed)
    images, labels = split.evaluation["x"], split.evaluation["labels"]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file = Workshop(folder, split, case.ratio).made(case, subject.path)
        session = Session(file)
        (expected,) = session.run({session.inputs[0]: images}).values()
        try:
            outputs, constants, figures = _through(file, images, folder)
        except RuntimeError as error:  # OpenVINO's own, of many lines
            return {"error": f"OpenVINO: {' '.join(str(error).split())[-160:]}"}
        weights = _plain_weights(file, folder / "plain.onnx")
        same = [any(_equal(weight, constant) for constant in constants) for weight in weights]
        return {
            "onnxruntime": 100 * float(np.mean(expected.argmax(1) == labels)),
            "openvino": 100 * float(np.mean(outputs.argmax(1) == labels)),
            "difference": float(np.abs(outputs - expected).max() / np.abs(expected).max()),
            "bytes": file.stat().st_size,
            "constants": f"{sum(same)} of {len(same)}",
            "zeros": 100 * sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights),
            **figures,
        }


def _through(file: Path, images: Array, folder: Path) -> tuple[Array, list[Array], Row]:
    """Outputs of what OpenVINO saved and read again, its constants, and the bytes and time."""
    import openvino

    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.read_model(file)
    sizes = {}
    for name, half in (("half", True), ("saved", False)):
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=half)
        sizes[name] = (folder / f"{name}.bin").stat().st_size
    saved = core.read_model(folder / "saved.xml")
    constants = [node.get_data() for node in saved.get_ops() if node.get_type_name() == "Constant"]
    compiled = core.compile_model(saved, "CPU", exact)
    outputs, times = compiled(images)[0], []
    for _ in range(_CALLS):
        start = time.perf_counter()
        compiled(images[:1])
        times.append(time.perf_counter() - start)
    return outputs, constants, {"ms": 1e3 * float(np.median(times)), **sizes}


def _plain_weights(file: Path, plain: Path) -> list[Array]:
    """The weights of a file, of two axes or more, unpacked."""
    onnxprune.unpack(file, plain)
    tensors = onnx.load(plain).graph.initializer
    return [onnx.numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) > 1]


def _equal(weight: Array, constant: Array) -> bool:
    """Whether they are the same numbers in the same order, whatever the shape."""
    return weight.size == constant.size and np.array_equal(weight.reshape(-1), constant.reshape(-1))


if __name__ == "__main__":
    run(TABLE, CASES, measure, __doc__)
