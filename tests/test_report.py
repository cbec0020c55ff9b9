"""The report: its JSON reads back, and the terminal shows what is in it."""

from __future__ import annotations

import io

import pytest
from pydantic import ValidationError
from rich.console import Console

from onnxprune.report import console, terminal
from onnxprune.report.schema import CompressionReport, LayerRow, MetricChange, Skipped

REPORT = CompressionReport(
    model="net.onnx",
    output="net.pruned.onnx",
    kept_ratio=0.25,
    params_before=1_234_567,
    params_after=1_200_000,
    nonzero_after=345_678,
    macs_before=9_000_000,
    macs_after=9_000_000,
    bytes_before=5_000_001,
    bytes_after=1_500_002,
    metric=MetricChange(name="top1", before=0.9173, after=0.9051),
    layers=(
        LayerRow(name="/a[0]/Conv", op="Conv", shape=(16, 3, 3, 3), kept=0.6125, importance=0.00123),
        LayerRow(name="fc", op="Gemm", shape=(10, 64), kept=0.2),
    ),
    skipped=(Skipped(name="rnn", reason="recurrent weights are left alone"),),
    data="data.npz: 100 samples",
    loss="cross-entropy",
    opset_before=11,
    opset_after=18,
    seconds={"statistics": 1.25, "sweep": 2.5},
    options={"ratio": 0.25, "exclude": ["fc"]},
)


def test_json_reads_back_as_the_same_report() -> None:
    assert CompressionReport.model_validate_json(REPORT.model_dump_json(indent=2)) == REPORT


def test_reports_cannot_be_changed_or_hold_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        REPORT.kept_ratio = 1.0  # type: ignore[misc]  # frozen: that is what is tested
    with pytest.raises(ValidationError, match="surprise"):
        CompressionReport.model_validate({**REPORT.model_dump(), "surprise": 1})


def test_total_time_is_that_of_all_stages() -> None:
    assert REPORT.seconds_total == 3.75


def test_the_terminal_shows_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_compression(REPORT)
    shown, errors = capsys.readouterr()
    assert errors == ""
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "/a[0]/Conv Conv 16×3×3×3 61.25 % 0.00123",
        "fc Gemm 10×64 20.00 %",
        "rnn recurrent weights are left alone",
        "parameters 1,234,567 1,200,000",
        "nonzero parameters 345,678",
        "bytes 5,000,001 1,500,002",
        "top1 91.73 % 90.51 %",
        "opset 11 18",
        "data: data.npz: 100 samples",
        "time: statistics 1.2 s, sweep 2.5 s",
        "zeros make the file smaller, not onnxruntime faster: the MACs are unchanged",
        "written: net.pruned.onnx",
    ):
        assert line in lines


def test_importance_has_no_column_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_compression(REPORT.model_copy(update={"layers": REPORT.layers[1:]}))
    assert "importance" not in capsys.readouterr().out


def test_warnings_go_to_stderr_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.warn("data-free: " + "very " * 60 + "[loud]")
    assert capsys.readouterr() == ("", "warning: data-free: " + "very " * 60 + "[loud]\n")


def test_nested_stages_are_shown_together_and_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(terminal, "screen", lambda stderr: screen)
    progress = terminal.ConsoleProgress()
    with pytest.raises(KeyError), progress.stage("sweep", 3) as outer:
        outer(1)
        with progress.stage("layer", None) as inner:
            inner(5)
            progress._bars.refresh()
            shown = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
            assert "sweep" in shown and "1/3" in shown and "layer" in shown and "5/?" in shown
        raise KeyError
    assert not progress._bars.live.is_started
    with progress.stage("again", 1):
        assert progress._bars.live.is_started
