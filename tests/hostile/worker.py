"""A process that reads hostile files, with little memory: a line in, `reader<TAB>path`, a line of JSON out.

What happens to it is the finding: an exception that is not ours, an unasked-for end, no answer at all.
"""

import json
import resource
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune import normalise  # noqa: F401  # whatever is imported later would count as the file's own memory
from onnxprune.data import Images, open_data, preprocessing
from onnxprune.errors import OnnxPruneError
from onnxprune.options import resolve
from onnxprune.plan import Plan
from onnxprune.report.inspection import inspect_model
from onnxprune.statistics import load as load_statistics

MEMORY = 1 << 30  # bytes that may be taken on top of what the process has to begin with
SMALL = {"samples": 4, "batch_size": 2}


def compress(path: Path) -> None:
    onnxprune.compress(path, None, output=path.with_suffix(".out"), ratio=0.9, **SMALL)


def cut(path: Path) -> None:
    onnxprune.compress(path, None, output=path.with_suffix(".out"), units=0.3, **SMALL)


def with_statistics(path: Path) -> None:
    """Beside the statistics lie the model that they are of, and its data."""
    model, data = path.with_name("model.onnx"), path.with_name("data.npz")
    onnxprune.compress(model, data, statistics=path, ratio=0.6, units=0.3)


def data(path: Path) -> None:
    inputs = onnxprune.load(path.with_name("model.onnx")).graph.inputs
    for _ in open_data(path, inputs, **SMALL).batches():
        pass


def images(path: Path) -> None:
    """`path` is their folder."""
    inputs = onnxprune.load(path.with_name("images.onnx")).graph.inputs
    for _ in open_data(Images(path, "unit"), inputs, **SMALL).batches():
        pass


READERS = {
    "load": lambda path: onnxprune.load(path),
    "inspect": inspect_model,
    "compress": compress,
    "cut": cut,
    "statistics": load_statistics,
    "with statistics": with_statistics,
    "plan": Plan.load,
    "data": data,
    "images": images,
    "preprocess": preprocessing,
    "options": lambda path: resolve(**json.loads(path.read_text())),
}


def tried(reader: str, path: Path) -> dict[str, str]:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # numbers may be absurd
            READERS[reader](path)
    except OnnxPruneError as error:
        return {"refused": str(error)}
    except BaseException:
        return {"crashed": traceback.format_exc()}
    return {"read": ""}


def main() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for line in sys.stdin:
        reader, _, path = line.rstrip("\n").partition("\t")
        print(json.dumps(tried(reader, Path(path))), flush=True)


if __name__ == "__main__":
    main()
