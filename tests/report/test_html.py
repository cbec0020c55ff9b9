"""Pages: everything in the record is shown and nothing else, names are text, nothing is fetched."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest

from onnxprune.errors import RuntimeUnavailableError
from onnxprune.report import html
from onnxprune.report.html import shapes
from onnxprune.report.schema import CompressionReport, GoalReport, Record
from report.records import BARE, COMPRESSION, HOSTILE, INSPECTION, LONG, RECORDS, spoiled

VOID = {"meta", "br", "img", "link", "input", "hr"}
SECTIONS = {
    "compression": ["curve", "stages", "layers", "units", "weights", "importance", "skipped", "repeat"],
    "inspection": ["layers", "units", "skipped", "frozen", "notes", "repeat"],
    "finetuning": ["epochs", "skipped", "repeat"],
    "sweep": ["curve", "skipped", "repeat"],
}
METHODS = ("mlprune", "magnitude")
PURE = [f"color-mix(in oklab, var(--kept) {share}%, var(--pruned))" for share in (0, 100)]
each_record = pytest.mark.parametrize("name", RECORDS)


class Page(HTMLParser):
    """A parsed page: elements (tag and attributes) in order, text by the element around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every element with this tag."""
        return [attributes for found, attributes in self.elements if found == tag]

    @property
    def text(self) -> str:
        """What is read, styles left out, spaces as one."""
        return " ".join(" ".join(data for tag, data in self.texts if tag != "style").split())


@cache
def shown(name: str, *, hostile: bool = False) -> str:
    """The page of one of the records, made once."""
    return html.page(spoiled(RECORDS[name]) if hostile else RECORDS[name])


def sections(page: Page) -> list[str]:
    return [attributes["id"] for attributes in page.all("h2")]


@each_record
def test_every_section_is_there_when_there_is_data(name: str) -> None:
    page = Page(shown(name))
    assert sections(page) == SECTIONS[name]
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == len(page.all("title")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert [attributes["aria-labelledby"] for attributes in page.all("section")] == SECTIONS[name]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for figure in page.all("svg"):
        assert figure["role"] == "img" and figure["aria-label"]


def test_sections_without_data_are_left_out() -> None:
    page = Page(html.page(BARE))
    assert sections(page) == ["repeat"] and not page.all("svg") and not page.all("table")
    assert "nothing was written" in page.text and "25.00 %" in page.text


@pytest.mark.parametrize(
    ("field", "section"),
    [("curve", "curve"), ("stages", "stages"), ("units", "units"), ("saliency_map", "importance")],
)
def test_a_section_goes_with_its_data(field: str, section: str) -> None:
    record = COMPRESSION.model_copy(update={field: getattr(BARE, field)})
    assert set(SECTIONS["compression"]) - set(sections(Page(html.page(record)))) == {section}


def test_a_goal_says_what_was_reached() -> None:
    goal = GoalReport(
        name="max_drop",
        asked=0.01,
        reached=0.004,
        interval=(-0.002, 0.009),
        target="ratio",
        value=0.2,
        measured="x",
    )
    text = "--max-drop 0.01: --ratio 0.2 has a drop of 0.004 (95 %: −0.002 … 0.009); measured: x"
    assert text in Page(html.page(COMPRESSION.model_copy(update={"goal": goal}))).text


def test_an_inspection_without_statistics_says_nothing_of_sensitivity() -> None:
    layers = tuple(
        row.model_copy(update={"importance": None, "loss_per_weight": None}) for row in INSPECTION.layers
    )
    units = tuple(row.model_copy(update={"costs": None}) for row in INSPECTION.units)
    record = INSPECTION.model_copy(update={"statistics": None, "layers": layers, "units": units})
    page = Page(html.page(record))
    assert "importance" not in page.text and "not scored" not in page.text and not page.all("svg")
    assert "importance" in Page(shown("inspection")).text


# -- names of anyone's making


@each_record
def test_whatever_texts_hold_is_text(name: str) -> None:
    """The same elements with the same attributes' names, however hostile every text of the record."""
    clean, page = Page(shown(name)), Page(shown(name, hostile=True))
    allowed = {(tag, frozenset(attributes)) for tag, attributes in clean.elements}
    assert {(tag, frozenset(attributes)) for tag, attributes in page.elements} <= allowed
    assert not page.all("script") and not page.all("img")
    assert '<script>alert("1")</script>' in page.text and "$\\frac" in page.text
    assert page.text.count("alert") > 15
    assert all("alert" not in data for tag, data in page.texts if tag == "style")


@each_record
def test_nothing_is_fetched(name: str) -> None:
    text = shown(name)
    assert "://" not in text and "@import" not in text
    for page in (Page(text), Page(shown(name, hostile=True))):
        policy = next(
            meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy["content"].startswith("default-src 'none'")
        for _, attributes in page.elements:
            assert not attributes.keys() & {"src", "srcset", "action", "data", "poster", "xlink:href"}
            assert attributes.get("href", "#").startswith("#")
            assert all(
                target.startswith("#") for target in re.findall(r"url\((.*?)\)", attributes.get("style", ""))
            )


@pytest.mark.parametrize("name", ["compression", "finetuning"])
def test_figures_take_their_colours_from_the_page(name: str) -> None:
    text = shown(name)
    drawn = re.findall(r"(?:fill|stroke): ([^;\"]*)", text[text.index("<body") :])
    assert drawn and {color for color in drawn if not color.startswith(("var(--", "color-mix("))} <= {"none"}


# -- figures and the record


def decoded(path: str, highest: int) -> list[int]:
    """Counts again from the heights of steps."""
    heights = [100 - float(height) for height in re.findall(r"V([\d.e-]+)H", path)]
    return [round(np.expm1(height / 100 * np.log1p(highest))) for height in heights]


def test_histograms_are_the_records() -> None:
    page = Page(shown("compression"))
    histogram = COMPRESSION.layers[0].histogram
    assert histogram is not None
    paths = {attributes.get("class"): attributes["d"] for attributes in page.all("path")}
    assert decoded(paths["was-path"], 300) == list(histogram.before)
    assert decoded(paths["is-path"], 300) == list(histogram.after)
    assert any("343 before, 43 after" in figure["aria-label"] for figure in page.all("svg"))


def test_bars_are_the_records() -> None:
    styles = [span["style"] for span in Page(shown("compression")).all("span") if "style" in span]
    shares = [float(style.removeprefix("--share: ").removesuffix("%")) for style in styles]
    stages, layers, units = [50, 25], [61.25, 100, 20, 100 / 3, 100], [75]  # importances: of the largest
    assert shares == pytest.approx([*stages, *layers, *units], rel=1e-3)  # written with four digits


def coordinates(path: str) -> list[float]:
    return list(map(float, re.findall(r"[\d.]+", path)))


def test_the_dense_model_beside_a_search_was_that_of_other_samples() -> None:
    """Candidates are measured on one half, the headline on the other: the line of the one did for both."""
    goal = GoalReport(
        **dict(name="max_drop", asked=0.01, reached=-0.006, target="ratio", value=0.25, measured="2 of x"),
        **dict(dense=0.9, searched="3 of x, searched on"),
    )
    text = html.page(COMPRESSION.model_copy(update={"goal": goal}))
    found = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="([^"]*)', text)
    drawn = [coordinates(path) for path, _ in found]
    (across,) = [coordinates(path) for path, style in found if "dasharray" in style]
    three = [line for line in drawn if len(line) == 6]
    heights = np.array(three).reshape(6, 2)[:, 1]
    points = [sorted((p.bytes, p.metric) for p in COMPRESSION.curve if p.method == m) for m in METHODS]
    slope, offset = np.polyfit(heights, np.reshape(points, (6, 2))[:, 1], 1)
    assert slope * across[1] + offset == pytest.approx(0.9, abs=1e-4)  # coordinates have six decimals
    assert "On the samples searched on (3 of x, searched on)" in Page(text).text
    assert "has a drop of −0.006" in Page(text).text


def test_the_curve_goes_through_the_points_of_the_record() -> None:
    """Where a point is drawn is a linear function of its size and metric, the same for all."""
    text = shown("compression")
    lines = [path for path in re.findall(r'<path d="([^"]*)" clip-path', text) if path.count("L") == 2]
    assert len(lines) == 2  # three points each
    places = np.array([coordinates(line) for line in lines]).reshape(6, 2)
    points = [sorted((p.bytes, p.metric) for p in COMPRESSION.curve if p.method == m) for m in METHODS]
    for axis, rising in ((0, True), (1, False)):  # y goes down
        values = np.reshape(points, (6, 2))[:, axis]
        slope, offset = np.polyfit(values, places[:, axis], 1)
        assert (slope > 0) == rising
        assert np.abs(slope * values + offset - places[:, axis]).max() < 0.01  # points of 1/72 inch
    assert "chosen" in Page(text).text


def test_the_map_has_a_cell_for_every_bin_with_weights() -> None:
    text = shown("compression")
    cells = re.findall(r'<path d="([^"]*)"[^>]*?style="fill: (color-mix[^;"]*)', text)
    assert sum(path.count("M") for path, _ in cells) == 6  # bins of 3 × 3 in which there are any
    assert [sum(path.count("M") for path, color in cells if color == pure) for pure in PURE] == [2, 3]
    assert "2,023 weights, 1,945 of them kept" in text


def test_units_are_ranked_and_their_costs_ascend() -> None:
    costs = INSPECTION.units[0].costs
    assert costs is not None
    text = Page(shown("inspection")).text
    assert "1: 1e-07, 2: 2e-06, 3: 4e-06, 0: 3e-05" in text
    heights = [float(height) for height in re.findall(r"V([\d.e-]+)H", shapes.ascending(costs))]
    assert heights == sorted(heights, reverse=True) and heights[-1] == 0 and len(heights) == 4
    assert shapes.ascending((0.0, 0.0)) and shapes.ascending((1.0,))  # no logarithm of nothing


def test_the_headline_says_what_changed_and_how_to_repeat_it() -> None:
    text = Page(shown("compression")).text
    for words in (
        "file 1.25 MB from 5.00 MB 4× smaller",
        "parameters kept 25.00 % 309 k of 1.23 M not zero",
        "MACs a sample 9.00 M from 9.00 M unchanged",
        "top1 90.51 % from 91.73 % −1.22 points",
        "data-free: noise",
        "Zeros make the file smaller, not onnxruntime faster",
        f"sha256 {COMPRESSION.sha256}",
        "opset 11 → 18",
        "seed 3",
        "python 3.11.2",
        "6 of them",
        LONG,
    ):
        assert words in text
    assert COMPRESSION.command is not None and COMPRESSION.command in text


@each_record
def test_a_page_is_made_from_the_json_alone(name: str) -> None:
    record = RECORDS[name]
    again: Record = type(record).model_validate_json(record.model_dump_json(indent=2))
    assert html.page(again) == html.page(record)


def test_names_of_figures_are_no_formulas() -> None:
    """They would be read $…$ as such, and what is none would fail."""
    curve = tuple(point.model_copy(update={"method": HOSTILE}) for point in COMPRESSION.curve)
    record = COMPRESSION.model_copy(update={"curve": curve})
    assert isinstance(record, CompressionReport) and "$\\frac" in Page(html.page(record)).text


def test_missing_packages_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None if name == "jinja2" else object())
    remedy = r"pages need jinja2; run pip install .onnxprune\[report\]."
    with pytest.raises(RuntimeUnavailableError, match=remedy):
        html.page(COMPRESSION)
