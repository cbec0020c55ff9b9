"""Gate: what is in the files is measured, each limit holds or fails by itself, and the command says it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result
from units.nets import parsed

from onnxprune.aims import Limits
from onnxprune.cli import main
from onnxprune.cli.parameters import count
from onnxprune.errors import DataError, GateError, ModelError, UsageError
from onnxprune.evaluate import evaluate
from onnxprune.gate import gate
from onnxprune.intervals import wilson
from onnxprune.report.schema import GateCheck, GateReport

CLASSES = 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dense.onnx, small.onnx that is like it but for a third of its weights, and labelled test.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)  # CI's own must not be written to
    dense = parsed(
        f"""net (float[n,20] x) => (float[n,{CLASSES}] y) {{
            [one] h = Gemm<transB=1>(x, w1)
            a = Relu(h)
            [two] y = Gemm<transB=1>(a, w2)
        }}""",
        {"w1": (30, 20), "w2": (CLASSES, 30)},
        0,
    )
    ir.save(dense, "dense.onnx")
    small = dense.clone()
    for name in ("w1", "w2"):
        value = small.graph.initializers[name].const_value
        assert value is not None
        array = value.numpy().copy()
        array[np.abs(array) < np.quantile(np.abs(array), 1 / 3)] = 0
        small.graph.initializers[name].const_value = ir.tensor(array, name=name)
    ir.save(small, "small.onnx")
    rng = np.random.default_rng(3)
    np.savez("test.npz", x=rng.standard_normal((200, 20)).astype("f4"), labels=rng.integers(0, CLASSES, 200))
    np.savez("plain.npz", x=rng.standard_normal((200, 20)).astype("f4"))
    return tmp_path


def checks(report: GateReport) -> dict[str, GateCheck]:
    [model] = report.models
    return {check.name: check for check in model.checks}


def top1(path: str) -> float:
    return evaluate(path, "test.npz").values["top1"]


# -- the library


def test_every_limit_is_checked_against_what_is_measured(folder: Path) -> None:
    report = gate(
        ["small.onnx"],
        reference="dense.onnx",
        data="test.npz",
        max_bytes=10_000,
        max_share=2.0,
        max_macs=720,
        min_metric=0.0,
        max_drop=1.0,
    )
    found = checks(report)
    assert list(found) == list(Limits.model_fields) and report.held and not report.failed
    small, dense = Path("small.onnx").stat().st_size, Path("dense.onnx").stat().st_size
    drop = found["max_drop"].interval
    assert drop is not None and drop[0] < found["max_drop"].measured < drop[1]
    assert found["min_metric"].interval == wilson(np.arange(200) < round(200 * top1("small.onnx")))
    assert {name: check.measured for name, check in found.items()} == {
        "max_bytes": small,
        "max_share": small / dense,
        "max_macs": 20 * 30 + 30 * CLASSES,
        "min_metric": top1("small.onnx"),
        "max_drop": top1("dense.onnx") - top1("small.onnx"),
    }
    assert (report.metric, report.reference) == ("top1", "dense.onnx")
    assert GateReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("name", "met", "step"),
    [
        ("max_bytes", lambda: Path("dense.onnx").stat().st_size, -1),
        ("max_share", lambda: 1, -1e-6),
        ("max_macs", lambda: 720, -1),
        ("min_metric", lambda: top1("dense.onnx"), 1e-6),
    ],
)
def test_a_limit_holds_where_it_is_met_exactly_and_fails_a_step_beyond(
    folder: Path, name: str, met: Callable[[], float], step: float
) -> None:
    for limit, held in ((met(), True), (met() + step, False)):
        report = gate(["dense.onnx"], reference="dense.onnx", data="test.npz", **{name: limit})
        assert report.held is held and len(report.failed) == (not held)


def test_a_drop_is_of_the_same_samples_and_without_labels_of_agreement(folder: Path) -> None:
    report = gate(["small.onnx"], reference="dense.onnx", data="plain.npz", max_drop=1.0)
    agreement = evaluate("small.onnx", "plain.npz", reference="dense.onnx").values["agreement"]
    assert report.metric == "agreement"
    assert checks(report)["max_drop"].measured == 1 - agreement > 0
    part = gate(["small.onnx"], reference="dense.onnx", data="test.npz", samples=50, seed=1, max_drop=1.0)
    both = [evaluate(f"{m}.onnx", "test.npz", samples=50, seed=1).value for m in ("dense", "small")]
    assert checks(part)["max_drop"].measured == both[0] - both[1]


def test_a_metric_of_one_s_own_has_its_own_unit(folder: Path) -> None:
    def largest(outputs, labels, reference):  # type: ignore[no-untyped-def]  # any function will do
        return 100 * float(np.mean([y.max() for y in outputs["y"]]))

    report = gate(["dense.onnx"], data="plain.npz", metric=largest, min_metric=50)
    check = checks(report)["min_metric"]
    assert report.metric == "largest" and check.measured > 50 and check.interval is None


def test_external_data_counts(folder: Path) -> None:
    ir.save(ir.load("dense.onnx"), "apart.onnx", external_data="weights.bin", size_threshold_bytes=0)
    whole = Path("apart.onnx").stat().st_size + Path("weights.bin").stat().st_size
    report = gate(["apart.onnx"], max_bytes=whole)
    assert report.held and report.models[0].bytes == whole > Path("dense.onnx").stat().st_size * 0.9
    assert not gate(["apart.onnx"], max_bytes=whole - 1).held


def test_one_data_file_of_many_weights_counts_once(folder: Path) -> None:
    ir.save(ir.load("dense.onnx"), "apart.onnx", external_data="weights.bin", size_threshold_bytes=0)
    locations = {
        entry.value
        for tensor in onnx.load("apart.onnx", load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {"weights.bin"}
    assert gate(["apart.onnx"], max_bytes=1).models[0].bytes < 2 * Path("dense.onnx").stat().st_size


def test_bytes_want_neither_a_runtime_nor_a_valid_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.session.onnxruntime", None)
    proto = onnx.load("dense.onnx")
    proto.graph.node[0].op_type = "Unheard"
    onnx.save(proto, "odd.onnx")
    assert gate(["odd.onnx", "dense.onnx"], max_bytes=10_000).held


def test_macs_that_nobody_knows_are_an_error(folder: Path) -> None:
    model = parsed("net (float[n,3,s,s] x) => (float[n,2,s,s] y) { y = Conv(x, k) }", {"k": (2, 3, 1, 1)}, 0)
    ir.save(model, "free.onnx")
    with pytest.raises(ModelError, match=r"free.onnx: its MACs are unknown.*fixed sizes"):
        gate(["free.onnx"], max_macs=10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no limit to check; give one of --max-bytes, --max-share"),
        ({"max_bytes": 0}, "--max-bytes 0"),
        ({"max_drop": float("nan")}, "--max-drop nan"),
        ({"min_metric": float("inf")}, "--min-metric inf"),
        ({"max_share": 0.5}, "--max-share compares with the dense model; give it with --reference"),
        ({"max_drop": 0.1}, "--max-drop compares with the dense model"),
        ({"speed": 2}, "--speed"),
    ],
)
def test_what_cannot_be_meant(folder: Path, given: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        gate(["small.onnx"], **given)


def test_no_model_and_no_labels(folder: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        gate([], max_bytes=1)
    with pytest.raises(DataError, match="no labels"):
        gate(["small.onnx"], data="plain.npz", min_metric=0.5)


# -- the command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["gate", *arguments])


def error(result: Result) -> str:
    [line] = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ")
    return line


def test_limits_that_hold_end_with_0(folder: Path) -> None:
    result = run("small.onnx", "--max-bytes", "10kB", "--max-macs", "1k")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"small.onnx bytes ≤ 10,000 {Path('small.onnx').stat().st_size:,} holds" in lines
    assert "small.onnx MACs per sample ≤ 1,000 720 holds" in lines


def test_one_that_fails_ends_with_3_and_one_line(folder: Path) -> None:
    given = ["small.onnx", "--reference", "dense.onnx", "--eval", "test.npz"]
    result = run(
        *given, "--max-bytes", "1k", "--max-share", "200%", "--min-metric", "99%", "--json", "g.json"
    )
    assert result.exit_code == GateError.exit_code == 3
    size, value = Path("small.onnx").stat().st_size, 100 * top1("small.onnx")
    assert f"small.onnx: bytes {size:,}, not ≤ 1,000 (--max-bytes)" in error(result)
    assert f"top1 {value:.2f} % (95 %: " in error(result) and "--max-share" not in error(result)
    assert "holds" in result.stdout and "data: test.npz: 200 samples" in result.stdout
    report = GateReport.model_validate_json((folder / "g.json").read_text())
    assert not report.held and [check.name for _, check in report.failed] == ["max_bytes", "min_metric"]
    assert report.command is not None and report.command.startswith("onnxprune gate small.onnx --reference")


def test_several_models_are_all_looked_at(folder: Path) -> None:
    limit = str(Path("dense.onnx").stat().st_size)
    ir.save(ir.load("dense.onnx"), "apart.onnx", external_data="weights.bin", size_threshold_bytes=0)
    assert run("small.onnx", "dense.onnx", "--max-bytes", limit).exit_code == 0
    result = run("apart.onnx", "small.onnx", "--max-bytes", "1k")
    assert result.exit_code == 3
    assert "apart.onnx: bytes" in error(result) and "; small.onnx: bytes" in error(result)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no limit to check"),
        (["--max-bytes", "few"], 2, "'few' is not a size"),
        (["--max-macs", "2MB"], 2, "'2MB' is not a number such as 500k, 300M"),
        (["--max-share", "50%"], 2, "give it with --reference"),
        (["--min-metric", "0.5"], 2, "no data to measure on; give it with --data"),
        (["--max-bytes", "1M", "--summary", "small.onnx"], 2, "named twice"),
        (["--max-bytes", "1M", "--json", "s.md", "--summary", "s.md"], 2, "named twice"),
        (["--max-bytes", "1M", "--summary", "nowhere/s.md"], 1, "no folder nowhere"),
        (["--max-bytes", "1M", "--compression", "none.json"], 1, "none.json: cannot be read: No such file"),
        (["--max-bytes", "1M", "--compression", "test.npz"], 1, "test.npz: is no such report"),
        (["--max-bytes", "1M", "--compression", "r.json", "dense.onnx"], 2, "--compression is of one model"),
        (["--max-bytes", "1M", "missing.onnx"], 1, "missing.onnx: no such file"),
        (["--max-bytes", "1M", "--reference", "test.npz"], 1, "test.npz: is not an ONNX"),
    ],
)
def test_what_cannot_be_done_is_told_from_what_fails(
    folder: Path, arguments: list[str], code: int, said: str
) -> None:
    result = run("small.onnx", *arguments)
    assert result.exit_code == code and said in error(result)
    assert not (folder / "s.md").exists()


def test_a_full_disk_for_the_summary(folder: Path) -> None:
    result = run("small.onnx", "--max-bytes", "1M", "--summary", "/dev/full")
    assert result.exit_code == 1 and "/dev/full: cannot be added to: No space left" in error(result)


def test_summaries_are_added_to_the_file_that_the_environment_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "steps.md")
    (folder / "steps.md").write_text("## Earlier\n\n")
    assert run("small.onnx", "--max-bytes", "1M", "--quiet").exit_code == 0
    assert run("small.onnx", "--max-bytes", "1k", "--quiet").exit_code == 3
    assert run("small.onnx", "--max-bytes", "1k", "--summary", "own.md").exit_code == 3
    text = (folder / "steps.md").read_text()
    assert text.startswith("## Earlier\n\n### onnxprune: small.onnx: ✅ all limits hold\n")
    assert text.count("### onnxprune") == 2 and "❌ 1 of 1 limits fail" in text
    assert (folder / "own.md").read_text() == text[text.rindex("### onnxprune") :]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "")
    assert run("small.onnx", "--max-bytes", "1M").exit_code == 0


def test_the_report_of_a_compression_makes_the_summary_richer(folder: Path) -> None:
    given = ["dense.onnx", "--data", "plain.npz", "--eval", "test.npz", "--ratio", "0.5", "--json", "r.json"]
    done = CliRunner().invoke(
        main, ["compress", *given, "--recipe", "magnitude", "-o", "out.onnx", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    result = run("out.onnx", "--max-bytes", "1M", "--compression", "r.json", "--summary", "s.md")
    assert result.exit_code == 0, result.output
    record = json.loads((folder / "r.json").read_text())
    text = (folder / "s.md").read_text()
    assert f"| bytes | {record['bytes_before']:,} | {record['bytes_after']:,} |" in text
    assert f"| top1 | {100 * record['metric']['before']:.2f} % | " in text
    assert record["command"] in text
    other = run("small.onnx", "--max-bytes", "1M", "--compression", "r.json", "--summary", "s.md")
    assert other.exit_code == 1 and "r.json: is of another file than small.onnx" in error(other)
    assert (folder / "s.md").read_text() == text


def test_data_are_found_under_the_name_of_the_reference(folder: Path) -> None:
    (folder / "calibration").mkdir()
    (folder / "test.npz").rename(folder / "calibration" / "dense.eval.npz")
    result = run("small.onnx", "--reference", "dense.onnx", "--max-drop", "100%")
    assert result.exit_code == 0, result.output
    assert "note: evaluation data: calibration/dense.eval.npz" in result.stderr


def test_numbers_have_prefixes_but_no_unit() -> None:
    assert [count(text) for text in ("300", "1.5k", "300M", "2 G")] == [300, 1500, 300_000_000, 2_000_000_000]


def test_the_help_has_the_exit_codes_that_errors_have() -> None:
    text = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    assert f"{UsageError.exit_code} wrong use, {GateError.exit_code} a limit of `gate` fails" in text
    documented = (Path(__file__).resolve().parent.parent / "docs" / "ci.md").read_text("utf-8")
    for code in {0, ModelError.exit_code, UsageError.exit_code, GateError.exit_code}:
        assert f"\n| {code} | " in documented
