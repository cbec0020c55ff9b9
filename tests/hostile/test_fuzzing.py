"""Whatever is in a file, it is read or refused in one sentence: no crash, no hang, little memory.

`ONNXPRUNE_FUZZ_MINUTES=15 pytest tests/hostile` goes on for as long, behind findings too; what was tried is
counted at the end.
"""

import io
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st
from PIL import Image

import onnxprune
from hostile.graphs import NAMES, absurd, message
from hostile.mutations import altered, spoiled
from hostile.sandbox import FOUND, Sandbox, explore

SAMPLES = 8


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


def written(path, content):
    path.write_bytes(content)
    return path


def test_spoiled_bytes_of_a_model(place):
    file = place / "hostile.onnx"
    explore(spoiled(WHOLE), lambda content: ("load", written(file, content)), 80, 0.2)


def test_absurd_fields_of_a_model(place):
    file = place / "hostile.onnx"
    explore(absurd(), lambda content: ("inspect", written(file, content)), 80, 0.2)


@pytest.mark.parametrize("reader", ["compress", "cut"])
def test_absurd_models_through_the_whole_line(place, reader):
    file = place / "hostile.onnx"
    explore(absurd(), lambda content: (reader, written(file, content)), 25, 0.15)


def test_spoiled_bytes_of_statistics(place):
    whole, file = (place / "whole.stats").read_bytes(), place / "hostile.stats"
    explore(spoiled([whole]), lambda content: ("with statistics", written(file, content)), 40, 0.06)


ODD_ARRAYS = [
    np.zeros((1, 7, 7)),
    np.full((1, 7, 7), np.nan),
    np.full((1, 7, 7), 1e300),
    np.zeros((0,)),
    np.zeros((1, 0, 7)),
    np.zeros((1, 7, 3), np.float32),
    np.zeros((1, 7, 7), np.int64),
    np.array(1.0),
    -np.eye(7)[None],
]


@st.composite
def absurd_statistics(draw, whole):
    """Of the right model, in the right format."""
    with safetensors.safe_open(whole, framework="numpy") as file:
        header = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    for key in ("statistics", "layers"):
        if draw(st.booleans()):
            header[key] = json.dumps(draw(altered(json.loads(header[key]), 2)))
    if draw(st.booleans()):
        arrays[draw(st.sampled_from(sorted(arrays)))] = draw(st.sampled_from(ODD_ARRAYS))
    return safetensors.numpy.save(arrays, header)


def test_absurd_fields_of_statistics(place):
    file, strategy = place / "hostile.stats", absurd_statistics(place / "whole.stats")
    explore(strategy, lambda content: ("with statistics", written(file, content)), 60, 0.1)


def test_plans(place):
    whole, file = (place / "whole.plan").read_bytes(), place / "hostile.plan"
    strategy = spoiled([whole]) | altered(json.loads(whole)).map(encoded)
    explore(strategy, lambda content: ("plan", written(file, content)), 60, 0.06)


def encoded(record):
    return json.dumps(record).encode()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(write, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    write(stream, **arrays)
    return stream.getvalue()


def picture(mode):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)).convert(mode).save(
        stream, "png"
    )
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
PICTURES = [picture("L"), picture("RGB"), picture("P")]
TABLE = b'path,label\n"a.npy",1\n"b.npy",2\n'
FILES = {
    ".npy": ("data", spoiled([npy(X), npy(np.arange(6)), npy(X.astype(">f8"))])),
    ".npz": ("data", spoiled([npz(np.savez, x=X, labels=np.arange(8)), npz(np.savez_compressed, x=X)])),
    ".csv": ("data", spoiled([TABLE]) | st.binary(max_size=200)),
    ".png": ("images", spoiled(PICTURES)),
    ".yaml": ("preprocess", spoiled([b"resize: [8, 8]\nmean: &a [0.4, 0.4]\nstd: *a\n", b"{a: [[[[[["])),
    ".json": ("preprocess", altered(PREPROCESSING).map(encoded)),
    ".options": ("options", altered(OPTIONS).map(encoded)),
}


@pytest.mark.parametrize("suffix", FILES)
def test_data_preprocessing_and_options(place, suffix):
    reader, contents = FILES[suffix]
    folder = place / f"of{suffix}"
    folder.mkdir()
    for name in ("model.onnx", "images.onnx"):
        (folder / name).write_bytes((place / name).read_bytes())
    file = folder / f"hostile{suffix}"
    if reader == "images":  # a folder of them
        (folder / "images").mkdir()
        file = folder / "images" / f"hostile{suffix}"
    explore(contents, lambda content: (reader, given_to(reader, written(file, content))), 40, 0.03)


def given_to(reader, file):
    return file.parent if reader == "images" else file


def test_nothing_was_found():
    assert not FOUND


def test_the_sandbox_finds_what_it_is_for(place):
    """Whole files are read; and a reader that is none is a crash."""
    sandbox = Sandbox()
    for name in NAMES:
        whole = written(place / "whole.onnx", message(name).SerializeToString())
        for reader in ("load", "inspect", "compress", *(["cut"] if name == "mlp" else [])):
            assert sandbox.give(reader, whole) == "", name
    assert sandbox.give("with statistics", place / "whole.stats") == ""
    assert sandbox.give("plan", place / "whole.plan") == ""
    assert sandbox.give("data", place / "data.npz") == ""
    with pytest.raises(AssertionError, match="KeyError"):
        sandbox.give("no such reader", place / "whole.plan")
    sandbox.close()
