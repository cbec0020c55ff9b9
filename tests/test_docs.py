"""The generated pages, of operators and of hard cases, are up to date, the first complete."""

import runpy
from pathlib import Path

import pytest

from onnxprune.cli import main
from onnxprune.finetune.ops import FUNCTIONS
from onnxprune.gradient.rules import NO_GRADIENT, VJP
from onnxprune.units.rules import RULES

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_page_of_hard_cases_is_what_their_tables_say():
    page = runpy.run_path(str(DOCS / "generate_hard_cases.py"))["page"]
    written = (DOCS / "hard-cases.md").read_text(encoding="utf-8")
    assert written == page(), "docs/hard-cases.md is out of date: run `python docs/generate_hard_cases.py`"


@pytest.fixture(scope="module")
def page():
    return runpy.run_path(str(DOCS / "generate_ops.py"))["page"]


def cells(text):
    """Operator → its four cells, of the table with five columns."""
    rows = [line.strip()[1:-1].split("|") for line in text.splitlines() if line.count("|") == 6]
    return {op.strip(): [cell.strip() for cell in rest] for op, *rest in rows}


def test_the_page_is_what_the_tables_say(page):
    written = (DOCS / "ops.md").read_text(encoding="utf-8")
    assert written == page(), "docs/ops.md is out of date: run `python docs/generate_ops.py`"


def test_the_page_of_the_command_line_is_what_the_program_says():
    page = runpy.run_path(str(DOCS / "generate_cli.py"))["page"]
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == page(), "docs/cli.md is out of date: run `python docs/generate_cli.py`"
    assert all(
        f"## {command.name}\n" in written and command.params[-1].opts[0] in written
        for command in main.commands.values()
    )


def test_every_operator_of_the_tables_is_there(page):
    assert cells(page()).keys() >= VJP.keys() | NO_GRADIENT | RULES.keys() | FUNCTIONS.keys()


def test_every_function_is_in_the_table_that_its_module_is_named_after(page):
    known = {op: row[3] for op, row in cells(page()).items()}
    assert all(known[op] for op in FUNCTIONS)


def test_a_new_rule_changes_the_page(page, monkeypatch):
    before = cells(page())
    monkeypatch.setitem(VJP, "Novel", VJP["Conv"])
    monkeypatch.setitem(RULES, "Novel", RULES["Conv"])
    after = cells(page())
    assert after.pop("Novel") == ["", *after["Conv"][1:3], ""] == ["", "linear", "conv", ""]
    assert after == before


def test_forms_without_a_rule_are_listed(page):
    """One that a gradient rule raises, one with something to fill in, and one that a tie rule returns."""
    lines = page().splitlines()
    assert "| gradient | training mode | module normalisation |" in lines
    assert "| gradient | unknown rank of '…' | module common |" in lines
    assert "| units | pads by amounts computed at run time | Pad |" in lines
