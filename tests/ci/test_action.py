"""The GitHub Action: its steps are run, on a committed model, and pass and fail their gate."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ci.steps import ACTION, ROOT, STEPS, Run, program, run_action

from onnxprune.report.schema import CompressionReport, GateReport

MODEL = "models/lenet_300_100.onnx"
#: What the committed model is made smaller with in seconds.
QUICK = {"model": MODEL, "ratio": "0.1", "arguments": "--recipe magnitude\n  --pack fp16"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A checkout of the user's: a model, and the data that `calibration/` has for it."""
    folder = tmp_path / "work"
    for file in (MODEL, "calibration/lenet_300_100.npz", "calibration/lenet_300_100.eval.npz"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    return folder


def verdict(run: Run) -> str:
    return run.summary.splitlines()[0]


def test_a_gate_that_holds(work: Path) -> None:
    run = run_action(work, program(work.parent), **QUICK, gate_max_bytes="200kB", gate_min_metric="90%")
    assert (run.code, run.step) == (0, "Gate"), run.log
    check_held(work, run, {"max_bytes": 200_000, "max_share": 1.0, "min_metric": 0.9})
    assert "| bytes | ≤ 200,000 | " in run.summary


def check_held(work: Path, run: Run, limits: dict[str, float]) -> None:
    """All files are there and say the same, of the file that was written."""
    report = CompressionReport.model_validate_json((work / run.outputs["report"]).read_text())
    gate = GateReport.model_validate_json((work / run.outputs["gate"]).read_text())
    size = (work / run.outputs["model"]).stat().st_size
    assert report.bytes_after == size and report.output == run.outputs["model"]
    assert {check.name: check.limit for check in gate.models[0].checks} == limits
    assert gate.held and gate.metric == "top1"
    assert verdict(run) == "### onnxprune: onnxprune/lenet\\_300\\_100.onnx: ✅ all limits hold"
    assert f" {size:,} | ✅ |" in run.summary
    assert f"| bytes | 1,067,418 | {size:,} |" in run.summary
    assert "| top1 | 98.40 % |" in run.summary
    assert "onnxprune compress -o onnxprune/lenet_300_100.onnx" in run.summary


def test_a_gate_that_fails_is_told_from_an_error(work: Path) -> None:
    run = run_action(work, program(work.parent), **QUICK, gate_max_bytes="20kB", gate_max_drop="0.001")
    assert (run.code, run.step) == (3, "Gate"), run.log
    [error] = [line for line in run.log.splitlines() if line.startswith("error: ")]
    assert "(--max-bytes)" in error and "(--max-drop)" in error and "(--max-share)" not in error
    assert verdict(run).endswith("❌ 2 of 3 limits fail")
    gate = GateReport.model_validate_json((work / run.outputs["gate"]).read_text())
    size = (work / run.outputs["model"]).stat().st_size
    assert not gate.held and gate.models[0].bytes == size > 20_000
    assert f"| bytes | ≤ 20,000 | {size:,} | ❌ |" in run.summary


@pytest.mark.parametrize(
    ("inputs", "code", "said"),
    [
        ({"model": "models/none.onnx", "ratio": "0.1"}, 1, "models/none.onnx: no such file"),
        ({"model": MODEL}, 2, "say what to prune"),
        ({"model": MODEL, "ratio": "much"}, 2, "'much' is not a fraction"),
        ({"model": MODEL, "ratio": "0.1", "output": "models"}, 2, "named twice"),
    ],
)
def test_other_codes_are_those_of_compress(work: Path, inputs: dict[str, str], code: int, said: str) -> None:
    run = run_action(work, program(work.parent), **inputs)
    assert (run.code, run.step, run.summary) == (code, "Compress", "")
    assert said in run.log


def recorded(work: Path, **inputs: str) -> list[list[str]]:
    """The command lines that the action would run."""
    log = work.parent / "log"
    run = run_action(work, program(work.parent, f'printf "%s\\0" "$@" "" >> {log}'), **inputs)
    assert run.code == 0, run.log
    words = log.read_text().split("\0")
    ends = [i for i, word in enumerate(words) if word in ("compress", "gate")]
    return [[w for w in words[a:b] if w] for a, b in zip(ends, [*ends[1:], None], strict=True)]


def test_every_input_reaches_its_option(work: Path) -> None:
    (work / "photos").mkdir()
    given = {"data": "d.npz", "eval": "photos", "preprocess": "unit", "metric": "m:f", "ratio": "0.5"}
    limits = {"max_bytes": "9MB", "max_share": "50%", "max_macs": "1M", "min_metric": "0.9", "max_drop": "2"}
    compress, gate = recorded(
        work,
        model="a/net.onnx",
        macs="0.7",
        max_drop="0.01",
        max_bytes="2MB",
        arguments=" --seed 3\n--pack\tfp16\n",
        output="out",
        **given,
        **{f"gate_{name}": value for name, value in limits.items()},
    )
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    goals = ["--macs", "0.7", "--max-drop", "0.01", "--max-bytes", "2MB"]
    written = ["-o", "out/net.onnx", "--json", "out/net.report.json"]
    further = ["--seed", "3", "--pack", "fp16"]
    assert compress == ["compress", *written, *options, *goals, *further, "--", "a/net.onnx"]
    flags = [word for name, value in limits.items() for word in (f"--{name.replace('_', '-')}", value)]
    reports = ["--compression", "out/net.report.json", "--json", "out/net.gate.json"]
    data = ["--data", "photos", "--preprocess", "unit", "--metric", "m:f"]
    reference = ["--reference", "a/net.onnx"]
    assert gate == ["gate", *reference, *reports, *data, *flags, "--", "out/net.onnx"]


def test_goals_are_limits_too_unless_others_are_given(work: Path) -> None:
    _, gate = recorded(work, model="net.onnx", max_drop="0.01", max_bytes="2MB", gate_max_drop="0.05")
    assert gate[gate.index("--max-bytes") + 1] == "2MB"
    assert gate[gate.index("--max-drop") + 1] == "0.05"
    assert gate[gate.index("--max-share") + 1] == "100%"


def test_a_preprocessing_of_the_calibration_data_does_not_stop_the_gate(work: Path) -> None:
    compress, gate = recorded(work, model="net.onnx", eval="test.npz", data="photos", preprocess="unit")
    assert "--preprocess" in compress and "--preprocess" not in gate


def test_nothing_in_an_input_is_run(work: Path) -> None:
    name = 'a `touch hacked` $(touch hacked)"; touch hacked; ".onnx'
    shutil.copy(work / MODEL, work / name)
    data = "-d $(touch hacked).npz"
    shutil.copy(work / "calibration/lenet_300_100.eval.npz", work / data)
    quick, folder = {**QUICK, "model": name}, "-out $(touch hacked)"
    run = run_action(work, program(work.parent), **quick, data=data, eval=data, output=folder)
    assert run.code == 0, run.log
    assert not list(work.rglob("hacked"))
    assert {path.suffix for path in (work / folder).iterdir()} == {".onnx", ".json"}
    arguments = "--exclude * $HOME $(touch hacked) 'a b'"
    compress, _ = recorded(work, model="net.onnx", arguments=arguments)
    assert compress[-9:-2] == arguments.split()
    assert not list(work.rglob("hacked"))


def test_scripts_hold_no_expressions_and_every_step_names_its_shell() -> None:
    scripts = [step for step in STEPS if "run" in step]
    assert len(scripts) == 3
    for step in scripts:
        assert "${{" not in step["run"] and step["shell"] == "bash"


def test_every_input_is_described_and_used() -> None:
    text = (ROOT / "action.yml").read_text("utf-8")
    for name, entry in ACTION["inputs"].items():
        assert entry["description"].endswith(".")
        assert re.search(rf"inputs\.{name}\b(?!-)", text), name
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == ACTION["inputs"].keys()


# -- docs/ci.md, as it stands


def documented(word: str) -> Any:
    """The YAML block that holds `word`."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/ci.md").read_text("utf-8"), re.M | re.S)
    [found] = [block for block in blocks if word in block]
    return yaml.safe_load(found)


def test_the_documented_inputs_are_those_of_the_action() -> None:
    [step] = [s for s in documented("runs-on")["jobs"]["shrink"]["steps"] if s.get("id") == "shrink"]
    assert step["with"].keys() <= ACTION["inputs"].keys()
    section = (ROOT / "docs/ci.md").read_text("utf-8").partition("## GitHub Actions")[2].partition("\n## ")[0]
    for name in ("gate-max-share", "gate-max-macs", "gate-min-metric", "output", "artifact", "arguments"):
        assert f"`{name}`" in section and name in ACTION["inputs"]


@pytest.mark.slow
def test_the_documented_workflow_passes_its_gate(work: Path) -> None:
    [step] = [s for s in documented("runs-on")["jobs"]["shrink"]["steps"] if s.get("id") == "shrink"]
    inputs = {name.replace("-", "_"): str(value) for name, value in step["with"].items()}
    run = run_action(work, program(work.parent), **inputs)
    assert (run.code, run.step) == (0, "Gate"), run.log
    check_held(work, run, {"max_bytes": 60_000, "max_share": 1.0, "max_drop": 0.01})


@pytest.mark.slow
def test_the_documented_script_for_any_other_ci_runs(work: Path) -> None:
    job = documented("artifacts:")["shrink"]
    install, *commands = job["script"]
    assert install.startswith("pip install")
    for command in commands:
        child = subprocess.run(
            ["bash", "-e", "-c", command], cwd=work, env=program(work.parent), capture_output=True, text=True
        )
        assert child.returncode == 0, child.stderr
    assert all((work / path).is_file() for path in job["artifacts"]["paths"])
    assert json.loads((work / "gate.json").read_text())["held"]
    assert "✅ all limits hold" in (work / "summary.md").read_text()
