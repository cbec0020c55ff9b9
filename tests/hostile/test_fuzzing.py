"""Whatever is in a file, it is read or refused in one sentence: no crash, no hang, little memory.

`ONNXPRUNE_FUZZ_MINUTES=15 pytest tests/hostile` goes on for as long; what was tried is counted at the end.
"""

import io
import json

import numpy as np
import onnx
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import onnxprune
from hostile.graphs import NAMES, absurd, message
from hostile.mutations import altered, spoiled
from hostile.sandbox import Budget, Sandbox
from onnxprune.statistics import load, save

EXAMPLES = 10**6 if Budget.MINUTES else 1
SAMPLES = 8


def fuzz(examples: int):
    """Settings of a property that is tried so often in a short run."""
    return settings(
        max_examples=EXAMPLES if Budget.MINUTES else examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not Budget.MINUTES,
        database=None,
    )


@pytest.fixture(scope="module")
def sandbox():
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a whole model, its data, statistics and plan."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "model.onnx").write_bytes(message("mlp").SerializeToString())
    (folder / "images.onnx").write_bytes(message("cnn").SerializeToString())
    x = np.random.default_rng(0).standard_normal((SAMPLES, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, labels=np.arange(SAMPLES) % 4)
    onnxprune.calibrate(folder / "model.onnx", folder / "data.npz", output=folder / "whole.stats")
    result = onnxprune.compress(folder / "model.onnx", folder / "data.npz", ratio=0.6, units=0.3)
    (folder / "whole.plan").write_text(result.plan.to_json())
    return folder


WHOLE = [message(name).SerializeToString() for name in NAMES]
_loading, _graphs, _cuts = Budget(0.2), Budget(0.2), Budget(0.2)
_statistics, _fields, _plans, _data = Budget(0.06), Budget(0.1), Budget(0.06), Budget(0.18)


@given(content=spoiled(WHOLE))
@fuzz(60)
def test_spoiled_bytes_of_a_model(sandbox, place, content):
    if _loading.spent:
        return
    (place / "hostile.onnx").write_bytes(content)
    sandbox.give("load", place / "hostile.onnx")


@given(content=absurd())
@fuzz(60)
def test_absurd_fields_of_a_model(sandbox, place, content):
    if _graphs.spent:
        return
    (place / "hostile.onnx").write_bytes(content)
    sandbox.give("inspect", place / "hostile.onnx")


@given(content=absurd(), reader=st.sampled_from(["compress", "cut"]))
@fuzz(30)
def test_absurd_models_through_the_whole_line(sandbox, place, content, reader):
    if _cuts.spent:
        return
    (place / "hostile.onnx").write_bytes(content)
    sandbox.give(reader, place / "hostile.onnx")


@given(st.data())
@fuzz(40)
def test_spoiled_bytes_of_statistics(sandbox, place, data):
    if _statistics.spent:
        return
    (place / "hostile.stats").write_bytes(data.draw(spoiled([(place / "whole.stats").read_bytes()])))
    sandbox.give("with statistics", place / "hostile.stats")


ODD_ARRAYS = [
    np.zeros((1, 7, 7)), np.full((1, 7, 7), np.nan), np.full((1, 7, 7), 1e300), np.zeros((0,)),
    np.zeros((1, 0, 7)),
    np.zeros((1, 7, 3), np.float32), np.zeros((1, 7, 7), np.int64), np.float64(1), -np.eye(7)[None],
]  # fmt: skip


@given(st.data())
@fuzz(40)
def test_absurd_fields_of_statistics(sandbox, place, data):
    """Of the right model, in the right format."""
    if _fields.spent:
        return
    with safetensors.safe_open(place / "whole.stats", framework="numpy") as file:
        header = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    for key in ("statistics", "layers"):
        if data.draw(st.booleans()):
            header[key] = json.dumps(data.draw(altered(json.loads(header[key]), 2)))
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(arrays)))
        arrays[name] = data.draw(st.sampled_from(ODD_ARRAYS))
    safetensors.numpy.save_file(
        {n: np.array(a) for n, a in arrays.items()}, place / "hostile.stats", metadata=header
    )
    sandbox.give("with statistics", place / "hostile.stats")


@given(st.data())
@fuzz(60)
def test_plans(sandbox, place, data):
    if _plans.spent:
        return
    whole = (place / "whole.plan").read_text()
    content = data.draw(
        spoiled([whole.encode()]) | altered(json.loads(whole)).map(lambda record: json.dumps(record).encode())
    )
    (place / "hostile.plan").write_bytes(content)
    sandbox.give("plan", place / "hostile.plan")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(write, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    write(stream, **arrays)
    return stream.getvalue()


X = np.random.default_rng(0).standard_normal((SAMPLES, 6)).astype(np.float32)
PREPROCESSING = {
    "resize": [8, 8],
    "crop": 4,
    "mean": [0.4, 0.4, 0.4],
    "std": 0.2,
    "range": [0, 1],
    "layout": "nchw",
}
OPTIONS = {
    "ratio": 0.5,
    "units": 0.2,
    "steps": 2,
    "pattern": None,
    "floors": {"a": 0.5},
    "exclude": ["x"],
    "seed": 1,
}
TABLE = b'path,label\n"a.npy",1\n"b.npy",2\n'
FILES = {
    ".npy": ("data", spoiled([npy(X), npy(np.arange(6)), npy(X.astype(">f8"))])),
    ".npz": ("data", spoiled([npz(np.savez, x=X, labels=np.arange(8)), npz(np.savez_compressed, x=X)])),
    ".csv": ("data", spoiled([TABLE]) | st.binary(max_size=200)),
    ".yaml": ("preprocess", spoiled([b"resize: [8, 8]\nmean: &a [0.4, 0.4]\nstd: *a\n", b"{a: [[[[[["])),
    ".json": ("preprocess", altered(PREPROCESSING).map(lambda record: json.dumps(record).encode())),
    ".options": ("options", altered(OPTIONS).map(lambda record: json.dumps(record).encode())),
}


@given(st.data())
@fuzz(150)
def test_data_preprocessing_and_options(sandbox, place, data):
    if _data.spent:
        return
    suffix = data.draw(st.sampled_from(sorted(FILES)))
    reader, contents = FILES[suffix]
    (place / f"hostile{suffix}").write_bytes(data.draw(contents))
    sandbox.give(reader, place / f"hostile{suffix}")


def test_the_sandbox_finds_what_it_is_for(sandbox, place):
    """Whole files are read; and a reader that is none is a crash."""
    for name in NAMES:
        (place / "whole.onnx").write_bytes(message(name).SerializeToString())
        for reader in ("load", "inspect", "compress", *(["cut"] if name == "mlp" else [])):
            assert sandbox.give(reader, place / "whole.onnx") == "", name
    assert sandbox.give("with statistics", place / "whole.stats") == ""
    assert sandbox.give("plan", place / "whole.plan") == ""
    assert sandbox.give("data", place / "data.npz") == ""
    with pytest.raises(AssertionError, match="KeyError"):
        sandbox.give("no such reader", place / "whole.plan")
    assert load(place / "whole.stats").sha256 == onnxprune.load(place / "model.onnx").sha256
    assert save and onnx
