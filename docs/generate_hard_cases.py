"""Writes docs/hard-cases.md from the tables in tests/hard_cases/: `python docs/generate_hard_cases.py`."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

_HEAD = """# Hard cases

Made from `tests/hard_cases/` by `python docs/generate_hard_cases.py`; every row is a test: a small model
that is hard in one way, through `onnxprune.compress` and back in onnxruntime. "Works" means that the file
was written, that onnxruntime gives with it what it gave with the dense one, to within what pruning costs,
and that as much is gone as was asked for: 5 % of the weights (`--ratio 0.95`), or a quarter of the units
(`--units 0.25`). Otherwise the sentence that refuses it is shown, and nothing is written. MODEL is the
file's path, … stands for what differs between machines.
"""

_COLUMNS = "| case | weights | units | left alone, and why |\n|---|---|---|---|\n"


def page() -> str:
    """The page, as Markdown."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hard_cases import CASES

    parts = [_HEAD]
    for family, cases in groupby(CASES, key=lambda case: case.family):
        rows = [_row(case) for case in cases]
        parts.append(f"\n## {family.capitalize()}\n\n{_COLUMNS}")
        parts.extend(rows)
    return "".join(parts)


def _row(case: Any) -> str:
    weights, units = case.weights, case.units
    alone = "; ".join(dict.fromkeys(case.reasons.values()))
    options = " ".join(f"--{name} {value}" for name, value in case.options.items())
    name = case.name + (f" (`{options}`)" if options else "")
    cells = (name, weights or "works", units or "works", alone)
    return "| " + " | ".join(_cell(text) for text in cells) + " |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    (ROOT / "docs" / "hard-cases.md").write_text(page(), encoding="utf-8")
