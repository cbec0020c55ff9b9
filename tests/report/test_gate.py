"""The report of a gate: a table, one sentence, Markdown in which no name is markup."""

import pytest

from onnxprune.report import gate as reporting
from onnxprune.report.schema import GateCheck, GatedModel, GateReport
from report.records import COMPRESSION, HOSTILE

CHECKS = (
    GateCheck(name="max_bytes", limit=1_000_000, measured=1_250_000, held=False),
    GateCheck(name="max_share", limit=0.5, measured=0.25, held=True),
    GateCheck(name="max_macs", limit=9e6, measured=9e6, held=True),
    GateCheck(name="min_metric", limit=0.9, measured=0.9051, held=True, interval=(0.89, 0.92)),
    GateCheck(name="max_drop", limit=0.01, measured=0.0122, held=False, interval=(0.004, 0.02)),
)
REPORT = GateReport(
    held=False,
    models=(GatedModel(model="net.pruned.onnx", bytes=1_250_000, checks=CHECKS),),
    metric="top1",
    data="test.npz: 100 samples",
)


def test_the_terminal_has_a_line_for_every_limit(capsys: pytest.CaptureFixture[str]) -> None:
    reporting.print_gate(REPORT)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:6] == [
        "net.pruned.onnx bytes ≤ 1,000,000 1,250,000 fails",
        "net.pruned.onnx share of the reference's bytes ≤ 50.00 % 25.00 % holds",
        "net.pruned.onnx MACs per sample ≤ 9,000,000 9,000,000 holds",
        "net.pruned.onnx top1 ≥ 90.00 % 90.51 % (95 %: 89.00 % … 92.00 %) holds",
        "net.pruned.onnx drop of top1 ≤ 0.01 0.0122 (95 %: 0.004 … 0.02) fails",
    ]
    assert lines[-1] == "data: test.npz: 100 samples"


def test_the_sentence_has_what_fails() -> None:
    assert reporting.failure(REPORT) == (
        "net.pruned.onnx: bytes 1,250,000, not ≤ 1,000,000 (--max-bytes); "
        "net.pruned.onnx: drop of top1 0.0122 (95 %: 0.004 … 0.02), not ≤ 0.01 (--max-drop); "
        "prune otherwise, or change the limit"
    )


def test_markdown_has_the_verdict_the_limits_and_the_change() -> None:
    text = reporting.markdown(REPORT, COMPRESSION)
    lines = text.splitlines()
    assert lines[0] == "### onnxprune: net.pruned.onnx: ❌ 2 of 5 limits fail"
    assert "| net.pruned.onnx | drop of top1 | ≤ 0.01 | 0.0122 (95 %: 0.004 … 0.02) | ❌ |" in lines
    assert "| bytes | 5,000,001 | 1,250,000 |" in lines
    assert "| top1 | 91.73 % | 90.51 % |" in lines
    fence = lines.index("```sh")
    assert lines[fence + 1 : fence + 3] == [COMPRESSION.command, "```"]
    assert "before" not in reporting.markdown(REPORT)


def test_several_models_are_counted_in_the_heading() -> None:
    model = REPORT.models[0].model_copy(update={"checks": CHECKS[1:2]})
    report = REPORT.model_copy(update={"held": True, "models": (model, model, model)})
    assert reporting.markdown(report).startswith(
        "### onnxprune: net.pruned.onnx and 2 more: ✅ all limits hold\n"
    )


def test_no_name_is_markup_and_tables_stay_tables() -> None:
    name = f"a|b\n# c `d` {HOSTILE}"
    model = REPORT.models[0].model_copy(update={"model": name})
    report = REPORT.model_copy(update={"models": (model,), "metric": name, "data": name})
    compression = COMPRESSION.model_copy(update={"command": "x\n```\n<b>"})
    text = reporting.markdown(report, compression)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    bare = [row.replace("\\\\", "").replace("\\|", "") for row in rows]
    assert {row.count("|") for row in bare} == {6, 4}
    outside = text.partition("```sh")[0] + text.rpartition("```")[2]
    for sign in "<>`[]$":
        assert outside.count(sign) == outside.count(f"\\{sign}"), sign
    assert text.count("```") == 2 and "\n# c" not in text
