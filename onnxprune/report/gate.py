"""The report of a gate as a table in a terminal, as the sentence of its error, and as Markdown for CI."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from onnxprune.errors import DataError
from onnxprune.report import words
from onnxprune.report.schema import CompressionReport, GateReport
from onnxprune.report.terminal import screen, table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")  # what a name may hold and Markdown would take for its own


def print_gate(report: GateReport) -> None:
    """Every limit of every model: what it allows, what was measured, whether it holds."""
    rows = [
        (model.model, *words.check(check, report.metric), "holds" if check.held else "fails")
        for model in report.models
        for check in model.checks
    ]
    table(("model", "limit on", "allowed", "measured", ""), rows, left=2)
    if report.data is not None:
        screen().print(f"data: {report.data}", soft_wrap=True)


def failure(report: GateReport) -> str:
    """One sentence about all limits that do not hold."""
    found = []
    for model, check in report.failed:
        what, allowed, measured = words.check(check, report.metric)
        flag = "--" + check.name.replace("_", "-")
        found.append(f"{model.model}: {what} {measured}, not {allowed} ({flag})")
    return f"{'; '.join(found)}; prune otherwise, or change the limit"


def read_compression(path: Path, report: GateReport) -> CompressionReport:
    """The report that `compress --json` wrote, which must be of the one model in `report`.

    Raises:
        DataError: it cannot be read, is no such report, or is of another file.
    """
    try:
        found = CompressionReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "is no such report"
        raise DataError(f"{path}: {why}; name what compress --json wrote") from error
    model = report.models[0]
    if found.bytes_after != model.bytes:
        written = words.count(found.bytes_after)
        raise DataError(
            f"{path}: is of another file than {model.model}: it says {written} bytes, there are "
            f"{model.bytes:,}; compress again, or leave the report out"
        )
    return found


def markdown(report: GateReport, compression: CompressionReport | None = None) -> str:
    """A section for a summary of CI: the verdict, every limit, and the model before and after."""
    count = sum(len(model.checks) for model in report.models)
    verdict = "✅ all limits hold" if report.held else f"❌ {len(report.failed)} of {count} limits fail"
    first, count_more = _plain(report.models[0].model), len(report.models) - 1
    names = f"{first} and {count_more} more" if count_more else first
    rows = [
        (model.model, *words.check(check, report.metric), "✅" if check.held else "❌")
        for model in report.models
        for check in model.checks
    ]
    lines = [f"### onnxprune: {names}: {verdict}", ""]
    lines += _table(("model", "limit on", "allowed", "measured", ""), rows, left=2)
    if compression is not None:
        lines += _table(("", "before", "after"), words.totals(compression), left=1)
        if compression.command is not None:
            lines += ["```sh", compression.command.replace("```", ""), "```", ""]
    if report.data is not None:
        lines += [f"Measured on {_plain(report.data)}.", ""]
    return "\n".join([*lines, ""])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> list[str]:
    """A table whose first `left` columns are text and the others figures, with an empty line behind."""
    rule = [":--" if index < left else "--:" for index in range(len(columns))]
    cells = [columns, rule, *([_plain(cell) for cell in row] for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in cells), ""]


def _plain(text: str) -> str:
    """Text as it stands: nothing in it is markup, and it is one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
