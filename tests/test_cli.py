"""The command line: what goes wrong is one line and an exit code, nothing half written, no input touched."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel

from onnxprune.aims import Goal
from onnxprune.cli import main
from onnxprune.options import Options, Training
from onnxprune.report import html
from onnxprune.report.schema import CompressionReport, FinetuneReport, Inspection, Record

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a classifier net.onnx, its data.npz and nothing that data could be discovered in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    text = """<ir_version: 9, opset_import: ["": 18]>
        net (float[batch,6] x) => (float[batch,3] y)
        { h = Gemm<transB=1>(x, w1, b1)  r = Relu(h)  y = Gemm<transB=1>(r, w2) }"""
    proto = onnx.parser.parse_model(text)
    shapes = {"w1": (8, 6), "b1": (8,), "w2": (3, 8)}
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=samples(rng), y=rng.integers(0, 3, 40))
    return tmp_path


def samples(rng: np.random.Generator, count: int = 40) -> np.ndarray:
    return rng.standard_normal((count, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to it, the folder's inputs stay as they were and no partial file is left."""
    if "folder" not in request.fixturenames:
        yield
        return
    folder: Path = request.getfixturevalue("folder")
    before = {path: digest(path) for path in folder.iterdir()}
    yield
    assert {path: digest(path) for path in before} == before
    assert not [path for path in folder.rglob(".*")]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, code: int, *words: str) -> None:
    """One error line that holds all `words`, nothing else on stderr but notes and warnings, no traceback."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words:
        assert word in lines[0]


def outputs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"net.onnx", "data.npz"}


# Every command that reads a model and data, as the shortest line that works.
COMMANDS = {
    "compress": ["--data", "data.npz", "--ratio", "0.5"],
    "calibrate": ["--data", "data.npz"],
    "sweep": ["--data", "data.npz", "--ratio", "0.8,0.5", "--recipe", "magnitude"],
    "evaluate": ["--data", "data.npz"],
    "inspect": [],
    "bench": ["--data", "data.npz", "--runs", "2"],
    "gate": ["--data", "data.npz", "--min-metric", "0", "--max-bytes", "1MB"],
    "finetune": ["--data", "data.npz", "--epochs", "1"],
}
each_command = pytest.mark.parametrize("command", COMMANDS)
each_reader = pytest.mark.parametrize(
    "command", ["compress", "calibrate", "sweep", "evaluate", "bench", "gate", "finetune"]
)
each_discoverer = pytest.mark.parametrize(
    "command", ["compress", "calibrate", "sweep", "evaluate", "finetune"]
)
each_writer = pytest.mark.parametrize("command", ["compress", "calibrate", "finetune"])


# -- wrong use: 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--ratio", "0"], "--ratio"),
        (["--ratio", "2"], "--ratio"),
        (["--ratio", "-5%"], "--ratio"),
        (["--ratio", "nan"], "--ratio"),
        (["--ratio", "much"], "'much' is not a fraction"),
        ([], "--ratio"),
        (["--ratio", "4%", "--recipe", "cake"], "cake"),
        (["--ratio", "4%", "--saliency", "guess"], "guess"),
        (["--ratio", "4%", "--pattern", "4:2"], "N:M"),
        (["--ratio", "4%", "--steps", "0"], "--steps"),
        (["--ratio", "4%", "--floor", "0.5"], "PATTERN=FRACTION"),
        (["--ratio", "4%", "--floor", "*=7"], "--floor"),
        (["--ratio", "4%", "--batch-size", "0"], "--batch-size"),
        (["--ratio", "4%", "--samples", "many"], "many"),
        (["--ratio", "4%", "--damping", "0"], "--damping"),
        (["--ratio", "4%", "--provider", "tpu"], "tpu"),
        (["--ratio", "4%", "--frobnicate"], "--frobnicate"),
    ],
)
def test_options_that_cannot_be_meant(folder: Path, arguments: list[str], word: str) -> None:
    refused(run("compress", "net.onnx", "--data", "data.npz", *arguments), 2, word)
    assert not outputs(folder)


@each_command
def test_no_model_named(command: str) -> None:
    refused(run(command), 2, "MODEL")


def test_no_such_command() -> None:
    refused(run("expand"), 2, "expand")


@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_without_data_it_is_asked_for(folder: Path, command: str) -> None:
    refused(run(command, "net.onnx"), 2, "--data")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--epochs", "0"], "--epochs"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--momentum", "1"], "--momentum"),
        (["--optimizer", "hope"], "hope"),
        (["--milestone", "half"], "'half' is not a fraction"),
        (["--milestone", "2"], "--milestones"),
        (["--objective", "distillation"], "--teacher"),
        (["--freeze", "*nothing*"], "'*nothing*'"),
        (["--checkpoint", "net.onnx"], "named twice"),
        (["--teacher", "net.onnx", "-o", "net.onnx"], "named twice"),
        (["--data", "noise"], "no labels to learn from"),
    ],
)
def test_fine_tuning_that_cannot_be_meant(folder: Path, arguments: list[str], word: str) -> None:
    refused(run("finetune", "net.onnx", "--data", "data.npz", *arguments), 2, word)
    assert not outputs(folder)


def test_a_teacher_that_is_another_network(folder: Path) -> None:
    proto = onnx.load(folder / "net.onnx")
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "other"
    onnx.save(proto, folder / "dense.onnx")
    refused(
        run("finetune", "net.onnx", "--data", "data.npz", "--teacher", "dense.onnx"), 1, "other", "inputs"
    )
    assert outputs(folder) == {"dense.onnx"}


def test_labels_outside_the_classes(folder: Path) -> None:
    np.savez(folder / "bad.npz", x=samples(np.random.default_rng(0)), y=np.full(40, 3))
    refused(run("finetune", "net.onnx", "--data", "bad.npz"), 1, "bad.npz", "label 3", "0..2")
    assert outputs(folder) == {"bad.npz"}


def test_learning_from_a_teacher_on_noise_is_warned_of_once(folder: Path) -> None:
    (folder / "dense.onnx").write_bytes((folder / "net.onnx").read_bytes())
    arguments = ["--data", "noise", "--teacher", "dense.onnx", "--epochs", "1", "--samples", "64"]
    result = run("finetune", "net.onnx", *arguments, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("data-free") == 1


def test_a_fine_tuned_model_runs_and_has_a_report(folder: Path) -> None:
    arguments = ["--data", "data.npz", "--eval", "data.npz", "--epochs", "2", "--json", "r.json"]
    result = run("finetune", "net.onnx", *arguments)
    assert result.exit_code == 0, result.output
    assert outputs(folder) == {"net.tuned.onnx", "r.json"}  # the checkpoint has served
    report = json.loads((folder / "r.json").read_text())
    assert report["output"] == "net.tuned.onnx" and report["metric"]["name"] == "top1"
    assert [row["epoch"] for row in report["epochs"]] == [0, 1, 2]
    assert "objective: labels" in result.stdout and "kept" in result.stdout


def test_going_on_from_a_checkpoint_is_announced(folder: Path) -> None:
    (folder / "net.tuned.checkpoint").write_text("not one")
    result = run("finetune", "net.onnx", *COMMANDS["finetune"])
    assert "note: going on from net.tuned.checkpoint" in result.stderr
    refused(result, 1, "net.tuned.checkpoint", "delete it")


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress", "net.onnx", "--ratio", "0.5", "-o", "net.onnx"],
        ["compress", "net.onnx", "--ratio", "0.5", "--data", "data.npz", "-o", "./data.npz"],
        ["compress", "net.onnx", "--ratio", "0.5", "-o", "small.onnx", "--json", "small.onnx"],
        ["calibrate", "net.onnx", "-o", "net.onnx"],
        ["evaluate", "net.onnx", "--data", "data.npz", "--json", "data.npz"],
        ["inspect", "net.onnx", "--json", "net.onnx"],
    ],
)
def test_inputs_are_never_overwritten(folder: Path, arguments: list[str]) -> None:
    refused(run(*arguments), 2, "named twice")
    assert not outputs(folder)


# -- bad models: 1


@each_command
@pytest.mark.parametrize(
    "content", [b"", b"not a model at all", b"\x08\x09" * 50], ids=["empty", "text", "bytes"]
)
def test_not_an_onnx_file(folder: Path, command: str, content: bytes) -> None:
    (folder / "bad.onnx").write_bytes(content)
    refused(run(command, "bad.onnx", *COMMANDS[command]), 1, "bad.onnx")
    assert outputs(folder) == {"bad.onnx"}


@each_command
def test_a_truncated_model(folder: Path, command: str) -> None:
    whole = (folder / "net.onnx").read_bytes()
    (folder / "bad.onnx").write_bytes(whole[: len(whole) * 2 // 3])
    refused(run(command, "bad.onnx", *COMMANDS[command]), 1, "bad.onnx")
    assert outputs(folder) == {"bad.onnx"}


@each_command
def test_no_such_model(folder: Path, command: str) -> None:
    refused(run(command, "missing.onnx", *COMMANDS[command]), 1, "missing.onnx")
    assert not outputs(folder)


@each_command
def test_missing_external_data(folder: Path, command: str) -> None:
    external = folder / "weights.bin"
    ir.save(
        ir.load(folder / "net.onnx"), folder / "bad.onnx", external_data=external.name, size_threshold_bytes=0
    )
    external.unlink()
    refused(run(command, "bad.onnx", *COMMANDS[command]), 1, "weights.bin")
    assert outputs(folder) == {"bad.onnx"}


# -- bad data: 1


@each_reader
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros((4, 6)), "b": np.zeros(4)}, ("'a', 'b'", "'x' float32[batch,6]")),
        ({"x": np.zeros((4, 7))}, ("[4, 7]", "'x' float32[batch,6]")),
        ({"x": np.zeros(6)}, ("[6]", "no batch axis")),
        ({"x": np.zeros((4, 6), complex)}, ("complex128", "'x' float32[batch,6]")),
        ({"x": np.zeros((0, 6))}, ("no samples", "'x' float32[batch,6]")),
        ({"x": np.eye(6) * [1, 1, 1, np.nan, 1, 1]}, ("NaN or Inf at sample 0",)),
        ({"x": np.zeros((4, 6)), "y": np.zeros(3, int)}, ("4 samples", "'y' [3]")),
    ],
)
def test_data_that_does_not_fit(
    folder: Path, command: str, arrays: dict[str, np.ndarray], words: tuple[str, ...]
) -> None:
    np.savez(folder / "bad.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub takes any keyword for allow_pickle
    arguments = ["bad.npz" if argument == "data.npz" else argument for argument in COMMANDS[command]]
    refused(run(command, "net.onnx", *arguments), 1, "bad.npz", *words)
    assert outputs(folder) == {"bad.npz"}


@each_reader
def test_no_such_data(folder: Path, command: str) -> None:
    arguments = ["bad.npz" if argument == "data.npz" else argument for argument in COMMANDS[command]]
    refused(run(command, "net.onnx", *arguments), 1, "bad.npz: no such file")
    assert not outputs(folder)


def test_evaluation_data_that_does_not_fit_is_said_before_the_result_is_written(folder: Path) -> None:
    np.savez(folder / "bad.npz", x=np.zeros((4, 7)))
    refused(run("compress", "net.onnx", *COMMANDS["compress"], "--eval", "bad.npz"), 1, "bad.npz", "[4, 7]")
    assert outputs(folder) == {"bad.npz"}


# -- other kinds of data


@pytest.fixture
def pictures(folder: Path) -> Iterator[Path]:
    """A model of images, picture.onnx, and a folder images/ with two classes of four."""
    image = pytest.importorskip("PIL.Image")
    text = """<ir_version: 9, opset_import: ["": 18]>
        net (float[batch,3,4,4] x) => (float[batch,2] y) { f = Flatten(x)  y = Gemm<transB=1>(f, w) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, 48)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(proto, folder / "picture.onnx")
    for name in ("a/0", "a/1", "a/2", "a/3", "b/4", "b/5", "b/6", "b/7"):
        path = folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)
    (folder / "unit.yaml").write_text("range: [0, 1]\n")
    (folder / "feeds.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    for n in range(8):\n"
        "        yield {'x': np.full((1, 3, 4, 4), n / 8, np.float32), 'labels': np.array([n % 2])}\n"
    )
    path = sys.path[:]
    yield folder
    sys.path[:] = path
    sys.modules.pop("feeds", None)


@each_reader
@pytest.mark.parametrize("data", [["images", "--preprocess", "unit.yaml"], ["feeds:feeds"]])
def test_every_command_takes_every_kind_of_data(pictures: Path, command: str, data: list[str]) -> None:
    arguments = [part for given in COMMANDS[command] for part in (data if given == "data.npz" else [given])]
    result = run(command, "picture.onnx", *arguments, "--json", "r.json")
    assert result.exit_code == 0, result.output
    assert "8 samples" in (pictures / "r.json").read_text() or command == "calibrate"


def test_fine_tuning_after_pruning_reads_a_stream_once(pictures: Path) -> None:
    arguments = ["--ratio", "0.5", "--data", "feeds:feeds", "--finetune", "1", "--schedule", "0.8,0.5"]
    result = run("compress", "picture.onnx", *arguments)
    assert result.exit_code == 0, result.output
    images = ["--data", "images", "--train-data", "images", "--eval", "feeds:feeds", "--preprocess", "unit"]
    result = run("compress", "picture.onnx", "--ratio", "0.5", "--finetune", "1", *images)
    assert result.exit_code == 0, result.output


@each_reader
def test_images_without_a_preprocessing(pictures: Path, command: str) -> None:
    arguments = ["images" if argument == "data.npz" else argument for argument in COMMANDS[command]]
    refused(run(command, "picture.onnx", *arguments), 2, "images: holds images", "--preprocess imagenet")


@each_reader
@pytest.mark.parametrize(
    ("given", "words"),
    [("cake", ("--preprocess cake", "imagenet")), ("unit", ("no folder or .csv of images", "leave it out"))],
)
def test_a_preprocessing_that_cannot_be_meant(
    folder: Path, command: str, given: str, words: tuple[str, ...]
) -> None:
    refused(run(command, "net.onnx", *COMMANDS[command], "--preprocess", given), 2, *words)
    assert not outputs(folder)


@each_reader
def test_an_object_that_is_not_there(pictures: Path, command: str) -> None:
    arguments = ["feeds:nothing" if argument == "data.npz" else argument for argument in COMMANDS[command]]
    refused(run(command, "picture.onnx", *arguments), 2, "feeds:nothing: feeds has no 'nothing'")


def test_presets_are_listed_where_they_are_asked_for() -> None:
    from onnxprune.data import PRESETS

    text = " ".join(run("compress", "--help").stdout.split())
    assert f"{', '.join(PRESETS)}, or a YAML or JSON file" in text


# -- results that cannot be written: 1


@each_writer
@pytest.mark.parametrize("where", ["nowhere/out", "."])
def test_unwritable_output(folder: Path, command: str, where: str) -> None:
    refused(run(command, "net.onnx", *COMMANDS[command], "-o", where), 1, where)
    assert not outputs(folder)


@each_command
@pytest.mark.parametrize("where", ["nowhere/out.json", "."])
def test_unwritable_json_is_said_before_any_work(folder: Path, command: str, where: str) -> None:
    refused(run(command, "net.onnx", *COMMANDS[command], "--json", where), 1, where)
    assert not outputs(folder)


@each_writer
def test_no_permission_to_write(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root, as in containers, may write anywhere
    refused(run(command, "net.onnx", *COMMANDS[command]), 1, "no permission")
    assert not outputs(folder)


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_a_full_device(folder: Path, command: str) -> None:
    refused(
        run(command, "net.onnx", *COMMANDS[command], "--json", "/dev/full"), 1, "/dev/full", "No space left"
    )


def process(*arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
    """`onnxprune` in a process of its own that can write no file longer than `limit` bytes."""

    def restrict() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup pytest &` has it ignored, and hung
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "onnxprune", *arguments]
    # No bytecode: where it may not be written, Python would leave it out anyway.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, preexec_fn=restrict
    )


def one_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["compress", "net.onnx", *COMMANDS["compress"], "-o", "out.onnx"], "out.onnx"),
        (["calibrate", "net.onnx", *COMMANDS["calibrate"], "-o", "out.stats"], "out.stats"),
        (["inspect", "net.onnx", "--json", "out.json"], "out.json"),
    ],
)
def test_a_disk_that_fills_up_leaves_nothing_behind(folder: Path, arguments: list[str], written: str) -> None:
    child = process(*arguments, limit=64)  # writing fails with EFBIG as it would with ENOSPC
    _, stderr = child.communicate(timeout=60)
    assert written in one_error(stderr)
    assert child.returncode == 1
    assert not outputs(folder)


@each_discoverer
def test_ctrl_c_in_the_middle(folder: Path, command: str) -> None:
    np.savez(folder / "many.npz", x=samples(np.random.default_rng(1), 400_000), y=np.zeros(400_000, int))
    (folder / "calibration").mkdir()
    for name in ("net.npz", "net.eval.npz"):  # discovered, hence announced: then we know that it is at work
        (folder / "calibration" / name).symlink_to(folder / "many.npz")
    ratio = ["--ratio", "0.5"] if command in ("compress", "sweep") else []
    with process(command, "net.onnx", *ratio, "--batch-size", "1") as child:
        assert child.stderr is not None
        announced = child.stderr.readline()
        time.sleep(2)  # past the imports and into the batches, of which there are many seconds
        finished = child.poll() is not None
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    error = one_error(announced + stderr)
    assert announced.startswith("note: ") and not finished
    assert error == "error: interrupted; no file was left half written"
    # a signal that meets an import that runs text by exec makes CPython itself end by SIGINT, after our error
    assert child.returncode in (1, -signal.SIGINT)
    assert outputs(folder) == {"many.npz", "calibration"}


# -- what works


@pytest.mark.parametrize(
    ("command", "record"), [("compress", Options), ("compress", Goal), ("finetune", Training)]
)
def test_help_is_quick_and_shows_the_library_s_defaults(command: str, record: type[BaseModel]) -> None:
    text = " ".join(run(command, "--help").output.split())
    for name, field in record.model_fields.items():
        flag = {"floors": "--floor", "milestones": "--milestone"}.get(name, "--" + name.replace("_", "-"))
        assert f"{flag} " in text
        if isinstance(field.default, str | float) and not isinstance(field.default, bool):
            assert f"[default: {field.default}]" in text
    heavy = {"onnx", "onnx_ir", "onnxruntime", "numpy", "rich", "scipy", "torch"}
    script = "import sys, onnxprune.cli; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert not heavy & set(loaded.stdout.split())


def test_version() -> None:
    assert run("--version").output.startswith("onnxprune")


def test_inspect_lists_layers(folder: Path) -> None:
    result = run("inspect", "net.onnx", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert "8×6" in result.stdout and "3×8" in result.stdout
    record = json.loads((folder / "out.json").read_text())
    assert [(row["op"], row["shape"], row["weights"], row["density"]) for row in record["layers"]] == [
        ("Gemm", [8, 6], 48, 1.0),
        ("Gemm", [3, 8], 24, 1.0),
    ]
    assert record["parameters"] == 48 + 8 + 24


def test_evaluate_measures_against_labels(folder: Path) -> None:
    result = run("evaluate", "net.onnx", "--data", "data.npz", "--json", "out.json")
    assert result.exit_code == 0, result.output
    values = json.loads((folder / "out.json").read_text())["values"]
    weights = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(folder / "net.onnx").graph.initializer
    }
    with np.load(folder / "data.npz") as archive:
        x, y = archive["x"], archive["y"]
    logits = np.maximum(x @ weights["w1"].T + weights["b1"], 0) @ weights["w2"].T
    assert values["top1"] == np.mean(logits.argmax(1) == y)
    assert f"{100 * values['top1']:.2f} %" in result.stdout


def test_json_replaces_an_older_file_and_says_so(folder: Path) -> None:
    (folder / "out.json").write_text("old")
    result = run("inspect", "net.onnx", "--json", "out.json")
    assert "out.json exists and will be replaced" in result.stderr
    assert json.loads((folder / "out.json").read_text())["model"] == "net.onnx"


@each_command
def test_quiet_prints_nothing(folder: Path, command: str) -> None:
    result = run(command, "net.onnx", *COMMANDS[command], "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")


def test_compress_writes_a_model_that_runs_and_a_report(folder: Path) -> None:
    result = run(
        "compress",
        "net.onnx",
        "--data",
        "data.npz",
        "--eval",
        "data.npz",
        "--ratio",
        "50%",
        "--json",
        "r.json",
    )
    assert result.exit_code == 0, result.output
    assert outputs(folder) == {"net.pruned.onnx", "r.json"}
    report = json.loads((folder / "r.json").read_text())
    assert report["kept_ratio"] == pytest.approx(0.5, abs=1 / 80)  # 80 parameters: to the nearest one
    assert report["output"] == "net.pruned.onnx" and report["metric"]["name"] == "top1"
    after = run("evaluate", "net.pruned.onnx", "--data", "data.npz", "--json", "e.json")
    assert after.exit_code == 0, after.output
    assert json.loads((folder / "e.json").read_text())["values"]["top1"] == pytest.approx(
        report["metric"]["after"]
    )


@pytest.mark.parametrize("data", [[], ["--data", "noise"]])
def test_without_data_a_warning_is_loud(folder: Path, data: list[str]) -> None:
    result = run("compress", "net.onnx", "--ratio", "50%", *data, "--quiet")
    assert result.exit_code == 0, result.output
    assert "warning: data-free" in result.stderr


def test_discovered_data_is_announced(folder: Path) -> None:
    (folder / "calibration").mkdir()
    (folder / "calibration" / "net.eval.npz").symlink_to(folder / "data.npz")
    result = run("evaluate", "net.onnx")
    assert result.exit_code == 0, result.output
    assert "note: evaluation data: calibration/net.eval.npz" in result.stderr


def test_discovered_data_is_named_from_here(folder: Path) -> None:
    """Beside the model's folder, which is found by an absolute path: no report needs to hold that."""
    for name in ("models", "calibration"):
        (folder / name).mkdir()
    shutil.copy(folder / "net.onnx", folder / "models")
    shutil.copy(folder / "data.npz", folder / "calibration" / "net.eval.npz")
    result = run("evaluate", "models/net.onnx", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert str(folder) not in result.output + (folder / "out.json").read_text()
    assert "note: evaluation data: calibration/net.eval.npz" in result.stderr


def test_positions_are_drawn_and_said(folder: Path) -> None:
    given = ("--data", "data.npz", "--positions")
    result = run("calibrate", "net.onnx", *given, "3", "-o", "net.stats", "--json", "net.json")
    assert result.exit_code == 0, result.output
    assert "40 samples, at most 3 positions of each" in result.output
    assert json.loads((folder / "net.json").read_text())["positions"] == 3
    assert run("calibrate", "net.onnx", "-o", "net.stats").exit_code == 0
    refused = run("calibrate", "net.onnx", *given, "0")
    assert refused.exit_code == 2 and "take at least one" in refused.output


def test_statistics_once_then_many_ratios(folder: Path) -> None:
    first = run("calibrate", "net.onnx", "--data", "data.npz", "-o", "net.stats", "--json", "net.json")
    assert first.exit_code == 0, first.output
    record = json.loads((folder / "net.json").read_text())
    assert (record["samples"], record["output"], len(record["layers"])) == (40, "net.stats", 2)
    assert [layer["positions"] for layer in record["layers"]] == [1, 1]
    for ratio in ("0.25", "0.75"):
        result = run("compress", "net.onnx", "--stats", "net.stats", "--ratio", ratio, "-o", f"{ratio}.onnx")
        assert result.exit_code == 0, result.output
    assert outputs(folder) == {"net.stats", "net.json", "0.25.onnx", "0.75.onnx"}


# -- pages


@pytest.mark.parametrize(
    ("arguments", "record"),
    [
        (["compress", "net.onnx", "--data", "data.npz", "--ratio", "0.5", "--report"], CompressionReport),
        (["inspect", "net.onnx", "--html"], Inspection),
        (["finetune", "net.onnx", "--data", "data.npz", "--epochs", "1", "--report"], FinetuneReport),
    ],
)
def test_a_page_is_what_the_json_says(folder: Path, arguments: list[str], record: type[Record]) -> None:
    result = run(*arguments, "my page.html", "--json", "net.json")
    assert result.exit_code == 0, result.output
    text = (folder / "my page.html").read_text(encoding="utf-8")
    known = record.model_validate_json((folder / "net.json").read_text())
    assert text == html.page(known)
    assert known.sha256 == digest(folder / "net.onnx")  # type: ignore[attr-defined]
    command = shlex.split(known.command)  # type: ignore[attr-defined]
    assert command == ["onnxprune", *arguments, "my page.html", "--json", "net.json"]


def test_inspect_takes_statistics(folder: Path) -> None:
    assert run("calibrate", "net.onnx", "--data", "data.npz").exit_code == 0
    result = run("inspect", "net.onnx", "--stats", "net.stats", "--html", "net.html", "--json", "net.json")
    assert result.exit_code == 0, result.output
    assert "loss a weight" in result.stdout
    layers = json.loads((folder / "net.json").read_text())["layers"]
    assert sum(layer["importance"] for layer in layers) == pytest.approx(1)
    assert "loss a unit" in (folder / "net.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["net.onnx", "data.npz", "out.onnx", "net.json"])
def test_a_page_goes_over_nothing_that_is_named(folder: Path, page: str) -> None:
    given = ["net.onnx", "--data", "data.npz", "--ratio", "0.5", "-o", "out.onnx", "--json", "net.json"]
    refused(run("compress", *given, "--report", page), 2, page, "named twice")
    assert not outputs(folder)


@pytest.mark.parametrize("arguments", [["compress", "--ratio", "0.5", "--report"], ["inspect", "--html"]])
def test_a_page_that_cannot_be_made_is_said_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    command, *options = arguments
    refused(run(command, "net.onnx", *options, "a.html"), 1, "jinja2 and matplotlib", "'onnxprune[report]'")
    assert not outputs(folder)
