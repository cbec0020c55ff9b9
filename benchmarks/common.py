"""What all benchmarks share: cases chosen on the command line, and tables that remember their rows.

A benchmark is a list of `Case`s and a function that measures one. `run` measures the cases asked for and
puts each row into `results/<table>.json` as soon as it is there, in the place of an older row of the same
case, so that single rows can be made again; `results/<table>.md` is the same for people. Every row carries
its environment.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from onnxprune.errors import OnnxPruneError
from onnxprune.session import providers
from onnxprune.threads import processors

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"

_PACKAGES = ("onnxruntime", "onnx", "onnx_ir", "numpy", "scipy")  # the ones that are imported

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row to be measured; `bar` is the most allowed, in the table's own terms, None: nothing is asked."""

    model: str
    ratio: float
    recipe: str = "default"
    bar: float | None = None

    @property
    def key(self) -> tuple[str, float, str]:
        """What tells this row from the others of its table."""
        return self.model, self.ratio, self.recipe


@dataclass(frozen=True)
class Column:
    """One column of the printed table: the row's `key`, its heading, and how a number is written."""

    key: str
    heading: str
    form: str = ""

    def cell(self, row: Mapping[str, Any]) -> str:
        """The row's entry as text; empty where there is none, and pass or FAIL for a verdict."""
        value = row.get(self.key)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "pass" if value else "**FAIL**"
        return format(value, self.form) if not isinstance(value, str) else value.replace("|", "\\|")


CASE_COLUMNS = (Column("model", "model"), Column("ratio", "kept", "g"), Column("recipe", "recipe"))
VERDICT_COLUMNS = (Column("bar", "bar", "g"), Column("ok", "verdict"), Column("error", "error"))


@dataclass(frozen=True)
class Table:
    """A benchmark's result: the `name` of its files, its title, how it is measured, its own columns."""

    name: str
    title: str
    method: str
    columns: tuple[Column, ...]

    def read(self, folder: Path = RESULTS) -> list[Row]:
        """The rows measured so far, in the order they were first measured."""
        path = folder / f"{self.name}.json"
        rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
        return rows

    def write(self, rows: Sequence[Row], folder: Path = RESULTS) -> None:
        """Write both files."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"table": self.name, "title": self.title, "method": self.method, "rows": rows}
        (folder / f"{self.name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        (folder / f"{self.name}.md").write_text(self.markdown(rows))

    def markdown(self, rows: Sequence[Row]) -> str:
        """The table for people, the environments of its rows below."""
        columns = (*CASE_COLUMNS, *self.columns, *VERDICT_COLUMNS)
        shown = [column for column in columns if any(column.cell(row) for row in rows)]
        lines = [f"# {self.title}", "", self.method, ""]
        lines += [_line(column.heading for column in shown), _line("---" for _ in shown)]
        lines += [_line(column.cell(row) for column in shown) for row in rows]
        runs = dict.fromkeys(environment_line(row["environment"]) for row in rows if "environment" in row)
        lines += ["", "Measured:", "", *(f"* {run}" for run in runs)]
        return "\n".join(lines) + "\n"


def merged(rows: Sequence[Row], row: Row, order: Sequence[Case]) -> list[Row]:
    """`rows` with `row` in the place of the one of its case, in the order of the cases; others go last."""
    others = [other for other in rows if _key(other) != _key(row)]
    places = {case.key: place for place, case in enumerate(order)}
    return sorted([*others, row], key=lambda each: places.get(_key(each), len(places)))


def within(loss: float | None, bar: float | None) -> bool | None:
    """Whether at most `bar` was lost; None where nothing is asked or known."""
    return None if bar is None or loss is None else loss <= bar + 1e-9  # a difference of rounded decimals


def parse(description: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], metavar="MODEL", help="names or shell patterns")
    parser.add_argument("--ratio", nargs="+", type=float, help="only these ratios")
    parser.add_argument("--recipe", nargs="+", help="only these recipes")
    parser.add_argument("--samples", type=int, help="calibrate on so many samples, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    return parser.parse_args(arguments)


def chosen(cases: Iterable[Case], options: argparse.Namespace) -> list[Case]:
    """The cases that the command line asks for."""
    return [
        case
        for case in cases
        if any(fnmatchcase(case.model, pattern) for pattern in options.only)
        and (options.ratio is None or case.ratio in options.ratio)
        and (options.recipe is None or case.recipe in options.recipe)
    ]


def run(
    table: Table, cases: Sequence[Case], measure: Callable[[Case, argparse.Namespace], Row], doc: str | None
) -> None:
    """Measure the cases asked for, write each row when it is there, and print the table."""
    options = parse(doc or table.title)
    wanted = chosen(cases, options)
    for case in wanted:
        print(f"{case.model} {case.ratio:g} {case.recipe}", end="\n" if options.list else " … ", flush=True)
        if options.list:
            continue
        row = measured(case, options, measure)
        table.write(merged(table.read(options.results), row, cases), options.results)
        verdict = {True: "pass, ", False: "FAIL, ", None: ""}[row.get("ok")]
        print(f"{row.get('error') or verdict + str(row['seconds']) + ' s'}", flush=True)
    if wanted and not options.list:
        print(f"\n{(options.results / f'{table.name}.md').read_text()}")


def measured(
    case: Case, options: argparse.Namespace, measure: Callable[[Case, argparse.Namespace], Row]
) -> Row:
    """The row of `case`, with the seconds it took if it does not say; a refusal is a row too."""
    row: Row = {"model": case.model, "ratio": case.ratio, "recipe": case.recipe, "bar": case.bar}
    start = time.perf_counter()
    try:
        row |= measure(case, options)
    except OnnxPruneError as error:
        row |= {"error": f"{type(error).__name__}: {error}", "ok": None if case.bar is None else False}
    seconds = round(time.perf_counter() - start, 1)
    return {"seconds": seconds, **row, "environment": environment(options.seed, options.samples)}


def compressed_by_command(*arguments: str | Path) -> Row:
    """What `onnxprune compress` with these arguments reports, run as a user does, in a process of its own.

    Raises:
        OnnxPruneError: the command failed; what it said.
    """
    with TemporaryDirectory() as folder:
        report, output = Path(folder) / "report.json", Path(folder) / "small.onnx"
        command = [sys.executable, "-m", "onnxprune", "compress", "--quiet", *map(str, arguments)]
        done = subprocess.run(
            [*command, "--json", str(report), "-o", str(output)],
            cwd=ROOT,
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise OnnxPruneError(done.stderr.strip())
        found: Row = json.loads(report.read_text())
    return found


def environment(seed: int, samples: int | None) -> Row:
    """Where, when and with what a row was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "seed": seed,
        "samples": samples,
        "device": _device(),
        "python": platform.python_version(),
        "onnxprune": version("onnxprune"),
        **{name: str(import_module(name).__version__) for name in _PACKAGES},
    }


def _key(row: Row) -> tuple[str, float, str]:
    return row["model"], row["ratio"], row["recipe"]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def environment_line(environment: Row) -> str:
    """An environment for people."""
    samples = "" if environment["samples"] is None else f", {environment['samples']} samples"
    packages = ", ".join(f"{name} {environment[name]}" for name in ("python", "onnxprune", *_PACKAGES))
    run = f"{environment['date']}, commit {environment['commit']}, seed {environment['seed']}{samples}"
    return f"{run}; {environment['device']}; {packages}"


def _commit() -> str:
    """The commit measured; "dirty" where more has changed than the results that this run writes itself."""
    sent = os.environ.get("ONNXPRUNE_COMMIT")  # where a copy of the files runs without its repository
    if sent:
        return sent
    changes = ("status", "--porcelain", "-uno", "--", ".", f":!{RESULTS}")
    commit, changed = (_git(*arguments) for arguments in (("describe", "--always"), changes))
    return f"{commit}-dirty" if changed else commit or "unknown"


def _git(*arguments: str) -> str:
    return _said("git", "-C", str(ROOT), *arguments)


def _said(*command: str) -> str:
    """What a program prints; nothing where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _device() -> str:
    """Processor, cores, what onnxruntime runs on, and the GPU, if any."""
    gpu = _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    parts = [_processor(), f"{processors()} cores", providers()[0], gpu]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
