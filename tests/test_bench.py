"""Bench: what it reports, in which order it runs, and what it refuses. Nothing here depends on speed."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from units.nets import parsed

from onnxprune import bench as module
from onnxprune.bench import RUNS, bench
from onnxprune.cli import main
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.footprint import footprint
from onnxprune.report import console
from onnxprune.report.schema import BenchReport, Latency, Spread
from onnxprune.session import Session


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr(module, "_PROCESSES", 1)


def saved(path, batch="n", width=8, channels=3, size=6):
    """A small CNN; `size` may be a symbol, which leaves its MACs unknown."""
    model = parsed(
        f"""net (float[{batch},{channels},{size},{size}] x) => (float[{batch},2] y) {{
            h = Conv<pads=[1,1,1,1]>(x, k)
            a = Relu(h)
            p = GlobalAveragePool(a)
            f = Flatten(p)
            y = Gemm(f, w)
        }}""",
        {"k": (width, channels, 3, 3), "w": (width, 2)},
    )
    ir.save(model, path)
    return path


def macs(width):
    return 36 * 27 * width + 2 * width


def test_a_report_holds_what_was_measured(tmp_path):
    dense, small = saved(tmp_path / "dense.onnx"), saved(tmp_path / "small.onnx", width=4)
    report = bench([dense, str(small)], batch_sizes=(1, 5), runs=3, threads=1)
    assert [row.model for row in report.models] == [str(dense), str(small)]
    assert [row.macs for row in report.models] == [macs(8), macs(4)]
    assert [row.bytes for row in report.models] == [dense.stat().st_size, small.stat().st_size]
    assert [[entry.batch for entry in row.latency] for row in report.models] == [[1, 5], [1, 5]]
    assert [[entry.speedup is None for entry in row.latency] for row in report.models] == [
        [True] * 2,
        [False] * 2,
    ]
    for row in report.models:
        assert row.load_seconds > 0 and row.peak_bytes > 0
        for entry in row.latency:
            assert 0 < entry.seconds.p10 <= entry.seconds.median <= entry.seconds.p90
    assert (report.runs, report.threads, report.notes) == (3, 1, ())
    assert report.data.startswith("data-free")
    assert BenchReport.model_validate_json(report.model_dump_json()) == report


def test_a_report_names_the_runtime_that_ran(tmp_path):
    versions = bench([saved(tmp_path / "dense.onnx")], runs=1, threads=1).versions
    assert {"onnxruntime", "onnxruntime-gpu"} & versions.keys()


def test_models_run_in_turns(tmp_path, monkeypatch):
    order = []

    class Watched(Session):
        def __init__(self, model, *given, alternating, **options):
            super().__init__(model, *given, alternating=alternating, **options)
            assert alternating
            self.name = model.stem

        def run(self, feeds, wanted=None):
            order.append((self.name, len(feeds["x"])))
            return super().run(feeds, wanted)

    monkeypatch.setattr(module, "Session", Watched)
    paths = [saved(tmp_path / f"{name}.onnx") for name in "abc"]
    bench(paths, batch_sizes=(2, 3), runs=4)
    timed = [[name for name, batch in order if batch == size][-24:] for size in (2, 3)]
    assert timed == [["a", "a", "b", "b", "c", "c"] * 4] * 2  # the first of each two is not timed
    assert [batch for _, batch in order[:3]] == [3] * 3  # the largest batch is tried before anything is timed


def test_speedups_are_medians_of_ratios_within_a_round():
    seconds = np.array([[2.0, 1.0], [20.0, 10.0], [4.0, 1.0]])
    assert module._latency(1, seconds, 0) == Latency(batch=1, seconds=Spread(p10=2.4, median=4, p90=16.8))
    speedup = module._latency(1, seconds, 1).speedup
    assert speedup is not None and speedup.median == 2.0  # and not 4 / 1


def test_symbolic_sizes_leave_macs_unknown(tmp_path, capsys):
    path = saved(tmp_path / "net.onnx", size="s")
    report = bench([path], runs=1)
    assert report.models[0].macs is None
    console.print_bench(report)
    assert " ? " in capsys.readouterr().out


def test_data_are_its_first_samples(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "_times", lambda sessions, feeds, runs, advance: seen.append(feeds["x"]) or np.ones((1, 1))
    )
    x = np.random.default_rng(0).standard_normal((7, 3, 6, 6)).astype(np.float32)
    bench([saved(tmp_path / "net.onnx")], x, batch_sizes=(2, 7), runs=1)
    assert [np.array_equal(given, x[: len(given)]) for given in seen] == [True, True]
    assert [len(given) for given in seen] == [2, 7]


@pytest.mark.parametrize("fixed", ["first", "second"])
def test_a_fixed_batch_is_the_only_one_and_said(tmp_path, fixed):
    paths = [
        saved(tmp_path / f"{name}.onnx", batch=4 if name == fixed else "n") for name in ("first", "second")
    ]
    report = bench(paths, batch_sizes=(1, 32), runs=1)
    assert [[entry.batch for entry in row.latency] for row in report.models] == [[4], [4]]
    assert report.notes == (f"{tmp_path / fixed}.onnx takes batches of exactly 4: no other size is measured",)
    assert bench(paths, batch_sizes=(4,), runs=1).notes == ()


# -- what is refused


def test_different_fixed_batches(tmp_path):
    paths = [saved(tmp_path / "one.onnx", batch=1), saved(tmp_path / "two.onnx", batch=2)]
    with pytest.raises(ModelError, match=r"two\.onnx takes batches of exactly 2 and .*one\.onnx of 1"):
        bench(paths)


def test_different_inputs_are_named(tmp_path):
    paths = [saved(tmp_path / "rgb.onnx"), saved(tmp_path / "grey.onnx", channels=1)]
    with pytest.raises(
        ModelError, match=r"grey\.onnx takes 'x' float32\[n,1,6,6\] and .*rgb\.onnx 'x' float32\[n,3,6,6\]"
    ):
        bench(paths)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"batch_sizes": (1, 0)}, "--batch 0"),
        ({"runs": 0}, "--runs 0"),
        ({"threads": -1}, "--threads -1"),
        ({"batch_sizes": ()}, "no batch size"),
        ({"models": ()}, "no model"),
    ],
)
def test_wrong_use(given, word):
    with pytest.raises(UsageError, match=word):
        bench(**{"models": ["net.onnx"], **given})


def test_fewer_samples_than_a_batch(tmp_path):
    with pytest.raises(DataError, match=r"2 samples: too few for --batch 3"):
        bench([saved(tmp_path / "net.onnx")], np.zeros((2, 3, 6, 6), np.float32), batch_sizes=(2, 3))


def test_the_second_model_is_checked_too(tmp_path):
    path = saved(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"missing\.onnx: no such file"):
        bench([path, tmp_path / "missing.onnx"])
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.onnx: is not an ONNX"):
        bench([path, tmp_path / "text.onnx"])


# -- the footprint


def test_memory_is_the_model_s_own_however_large_the_parent(tmp_path):
    """Linux hands a parent's peak down to its children: it must neither hide nor inflate theirs."""
    large = parsed("net (float[n,4096] x) => (float[n,4096] y) { y = MatMul(x, w) }", {"w": (4096, 4096)})
    ir.save(large, tmp_path / "net.onnx")
    weights = 4 * 4096**2
    ballast = np.ones(40_000_000)  # 320 MB
    held = footprint(tmp_path / "net.onnx", {"x": np.zeros((1, 4096), np.float32)}, threads=1)
    assert ballast.all()
    assert weights < held.peak_bytes < 4 * weights


def test_inputs_may_have_any_name(tmp_path):
    text = "net (float[n,2] {0}, float[n,2] {1}) => (float[n,2] y) {{ h = Add({0}, {1})  y = MatMul(h, w) }}"
    ir.save(parsed(text.format("file", "allow_pickle"), {"w": (2, 2)}), tmp_path / "net.onnx")
    feeds = {name: np.zeros((1, 2), np.float32) for name in ("file", "allow_pickle")}
    assert footprint(tmp_path / "net.onnx", feeds).load_seconds > 0


def test_a_process_that_fails_is_quoted(tmp_path):
    with pytest.raises(ModelError, match=r"net\.onnx: memory and load time cannot be measured: .*cannot run"):
        footprint(saved(tmp_path / "net.onnx"), {"x": np.zeros((1, 2, 6, 6), np.float32)})


def test_a_module_beside_the_caller_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this numpy')")
    monkeypatch.chdir(tmp_path)
    path = saved(Path("net.onnx"))
    assert footprint(path, {"x": np.zeros((1, 3, 6, 6), np.float32)}).peak_bytes > 0


# -- the command


def test_the_command_prints_and_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Path("a.onnx"), batch=2), saved(Path("b.onnx"), batch=2)
    arguments = ["bench", "a.onnx", "b.onnx", "--batch", "1", "--batch", "2", "--runs", "2", "--threads", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", "out.json"])
    assert result.exit_code == 0, result.output
    assert "note: a.onnx takes batches of exactly 2: no other size is measured" in result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "model batch median ms 10–90 % speed-up 10–90 %" in lines
    assert "2 rounds of one call each, 1 thread, CPUExecutionProvider" in lines
    record = json.loads(Path("out.json").read_text())
    assert [row["model"] for row in record["models"]] == ["a.onnx", "b.onnx"]


def test_the_command_s_help_names_the_library_s_default():
    assert f"[default: {RUNS}]" in " ".join(CliRunner().invoke(main, ["bench", "--help"]).output.split())


def test_the_command_exits_with_the_code_of_the_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Path("a.onnx"))
    for code, *arguments in ((1, "a.onnx", "b.onnx"), (2, "a.onnx", "--batch", "0"), (2,)):
        result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
        assert (
            result.exit_code == code
            and result.stderr.startswith("error: ")
            and result.stderr.count("\n") == 1
        )
    assert not CliRunner().invoke(main, ["bench", "a.onnx", "--runs", "1", "--quiet"]).stdout
