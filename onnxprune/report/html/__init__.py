"""Records of `schema` as pages: one file each, nothing fetched, no scripts; light and dark, wide and narrow.

`templates` have the pages, `figures` what matplotlib draws and `shapes` small paths; all of it comes from the
record alone, so that a page can be made from the JSON again. Needs the extra `report`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from onnxprune.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from pydantic import BaseModel

_PACKAGES = ("jinja2", "matplotlib")


def require() -> None:
    """Say at once, before any work, that pages cannot be made.

    Raises:
        RuntimeUnavailableError: a package is missing; says which, and how to get it.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise RuntimeUnavailableError(f"pages need {names}; run pip install 'onnxprune[report]'")


def page(record: BaseModel) -> str:
    """The page of a `CompressionReport`, `FinetuneReport`, `SweepReport` or `Inspection`, as HTML.

    Raises:
        RuntimeUnavailableError: a package is missing.
    """
    require()
    from onnxprune.report.html.rendering import render

    return render(record)
