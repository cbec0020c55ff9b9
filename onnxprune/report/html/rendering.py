"""Rendering: which template shows which record, and the words and shapes that templates use."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import PurePath

import jinja2
from pydantic import BaseModel

from onnxprune.report import words
from onnxprune.report.html import figures, shapes
from onnxprune.report.schema import (
    CompressionReport,
    FinetuneReport,
    Inspection,
    LayerRow,
    Skipped,
    SweepReport,
)

_TEMPLATES: dict[type[BaseModel], str] = {
    CompressionReport: "compression.html",
    FinetuneReport: "finetuning.html",
    Inspection: "inspection.html",
    SweepReport: "sweep.html",
}


def render(record: BaseModel) -> str:
    """The page of `record`. Every name in it comes from a file that anyone may have made: all is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnxprune.report.html"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("percent", "number", "count", "size", "shape", "names")
    }
    environment.filters |= {
        "base": _base,
        "grouped": _grouped,
        "largest": _largest,
    }
    return environment.get_template(_TEMPLATES[type(record)]).render(
        record=record, words=words, figures=figures, shapes=shapes
    )


def _base(path: str) -> str:
    return PurePath(path).name


def _largest(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Layers with the most weights first."""
    return sorted(rows, key=lambda row: -prod(row.shape))


def _grouped(skipped: Sequence[Skipped]) -> list[tuple[str, list[str]]]:
    """Reasons with the names they hold for, the commonest first."""
    found: dict[str, list[str]] = {}
    for entry in skipped:
        found.setdefault(entry.reason, []).append(entry.name)
    return sorted(found.items(), key=lambda pair: -len(pair[1]))
