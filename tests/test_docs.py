"""The generated page of operators is up to date, and complete."""

import runpy
from pathlib import Path

import pytest

from onnxprune.gradient.rules import NO_GRADIENT, VJP
from onnxprune.units.rules import RULES

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def page():
    return runpy.run_path(str(DOCS / "generate_ops.py"))["page"]


def cells(text):
    """Operator → its three cells, of the table with four columns."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if line.count("|") == 5]
    return {op.strip(): [cell.strip() for cell in rest] for op, *rest in rows}


def test_the_page_is_what_the_tables_say(page):
    written = (DOCS / "ops.md").read_text(encoding="utf-8")
    assert written == page(), "docs/ops.md is out of date: run `python docs/generate_ops.py`"


def test_every_operator_of_the_tables_is_there(page):
    assert cells(page()).keys() >= VJP.keys() | NO_GRADIENT | RULES.keys()


def test_a_new_rule_changes_the_page(page, monkeypatch):
    before = cells(page())
    monkeypatch.setitem(VJP, "Novel", VJP["Conv"])
    monkeypatch.setitem(RULES, "Novel", RULES["Conv"])
    after = cells(page())
    assert after.pop("Novel") == ["", *after["Conv"][1:]] == ["", "linear", "conv"]
    assert after == before


def test_forms_without_a_rule_are_listed(page):
    """One that a gradient rule raises, one with something to fill in, and one that a tie rule returns."""
    lines = page().splitlines()
    assert "| gradient | training mode | module normalisation |" in lines
    assert "| gradient | unknown rank of '…' | module common |" in lines
    assert "| units | pads by amounts computed at run time | Pad |" in lines
