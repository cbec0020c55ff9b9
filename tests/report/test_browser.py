"""Pages in a real browser: nothing sticks out, everything can be read, nothing is fetched. Skips without one.

Screenshots are left in pytest's temporary folder, a file for each page, width and scheme.
"""

import struct
from pathlib import Path

import pytest

from onnxprune.report import html
from report.browser import LOW_CONTRAST, PROGRAM, Browser, browser
from report.records import RECORDS, spoiled

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")

_BACKGROUNDS = {False: "rgb(255, 255, 255)", True: "rgb(15, 19, 24)"}
#: Ids of the headings of tables that are wider than the page.
SCROLLING = """[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth)
  .map(box => box.getAttribute('aria-labelledby'))"""
#: Widths of the names of rows, in pixels.
NAMES = "[...document.querySelectorAll('tbody th')].map(name => name.clientWidth)"
PAGES = (*RECORDS, "hostile")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A folder with every page; all that can be opened is open, to be looked at as well."""
    folder = tmp_path_factory.mktemp("pages")
    for name, record in {**RECORDS, "hostile": spoiled(RECORDS["compression"])}.items():
        text = html.page(record).replace("<details>", "<details open>")
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_and_can_be_read(chromium: Browser, pages: Path, name: str, width: int, dark: bool) -> None:
    page = pages / f"{name}.html"
    chromium.open(page, width=width, dark=dark)
    assert chromium.requests() == [page.as_uri()]
    assert chromium.complaints() == []
    assert chromium.evaluate("document.documentElement.scrollWidth") == width
    assert chromium.evaluate(LOW_CONTRAST) == []
    if name != "hostile":  # whose headings are longer than a page is wide
        assert chromium.evaluate(SCROLLING) == []  # columns out of sight: of a curve it was the accuracy
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == _BACKGROUNDS[dark]
    taken = pages / f"{name}-{width}-{'dark' if dark else 'light'}.png"
    chromium.screenshot(taken)
    size = struct.unpack(">II", taken.read_bytes()[16:24])
    assert size == (width, chromium.evaluate("document.documentElement.scrollHeight"))


def test_text_of_figures_can_be_read_on_a_phone(chromium: Browser, pages: Path) -> None:
    chromium.open(pages / "compression.html", width=390, dark=False)
    sizes = chromium.evaluate(
        "[...document.querySelectorAll('svg.figure')].flatMap(svg => [...svg.querySelectorAll('text')]"
        ".map(text => parseFloat(getComputedStyle(text).fontSize) * svg.getScreenCTM().a))"
    )
    assert len(sizes) > 10 and min(sizes) > 9  # CSS pixels; a phone's own smallest labels have about ten


def test_the_browser_would_find_what_is_wrong(chromium: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta name=viewport content='width=device-width'>"
        "<body style='margin: 0; background: #fff'><p style='color: #999'>pale</p><p>black</p>"
        "<div style='width: 900px'>wide</div><img src='missing.png'><script>console.log('x')</script>"
    )
    chromium.open(bad, width=390, dark=False)
    assert chromium.evaluate(LOW_CONTRAST) == ["2.85 pale"]
    assert chromium.evaluate("document.documentElement.scrollWidth") == 900
    assert chromium.requests() == [bad.as_uri(), (tmp_path / "missing.png").as_uri()]
    assert any("'x'" in said or '"x"' in said for said in chromium.complaints())


def test_names_of_nodes_broke_in_the_middle_beside_empty_space(chromium: Browser, pages: Path) -> None:
    chromium.open(pages / "inspection.html", width=1100, dark=False)
    assert min(chromium.evaluate(NAMES)) >= 180  # pixels: twelve em of 16, at 92.5 %; node_Conv_369 takes 110
