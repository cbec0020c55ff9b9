"""The documentation says what is there: pages, links, options, figures."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from onnxprune.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"index.md"}  # README.md, by docs/mkdocs_hooks.py
BUILT_BY = ("mkdocs", "material", "mkdocstrings", "l2m4m")  # the extra `docs`
#: Options that pages name and that are other programs'.
FOREIGN = {"--nproc-per-node", "--strict"}


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def commands(block: str) -> Iterator[list[str]]:
    """Every call of a command of ours in shell text: its name and arguments."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for at, word in enumerate(words[:-1]):
            if word == "onnxprune" and words[at + 1] in main.commands:
                end = next((i for i, w in enumerate(words) if i > at and w in ("&&", "||", "|", ";")), None)
                yield words[at + 1 : end]


def check(command: str, arguments: list[str]) -> None:
    """Parse as click does, but open no file."""
    found = main.commands[command]
    context = click.Context(found, info_name=command)
    values, rest, _ = found.make_parser(context).parse_args(list(arguments))
    assert not rest, f"{command}: too many arguments: {rest}"
    for param in found.params:
        given = values.get(param.name)
        if isinstance(param.type, click.Choice) and given is not None:
            for value in given if isinstance(given, list) else [given]:
                param.type.convert(value, param, context)


def test_every_page_is_in_the_navigation_and_there() -> None:
    # The file names its hook and nothing of Python, so the safe loader will do.
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    named = re.findall(r"[\w/-]+\.md", json.dumps(site["nav"]))
    there = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}
    assert sorted(named) == sorted(there | GENERATED)
    assert all((ROOT / hook).is_file() for hook in site["hooks"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text("utf-8")))
    targets = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_are_ones_that_the_program_takes(page: Path) -> None:
    text = page.read_text("utf-8")
    shown = [*fenced(text, "sh"), *re.findall(r"`(onnxprune [^`]+)`", prose(text))]
    for command, *arguments in (call for block in shown for call in commands(block)):
        check(command, arguments)


def test_the_readme_and_the_quickstart_show_commands() -> None:
    """So that the test above has something to look at."""
    for page in (ROOT / "README.md", ROOT / "docs/quickstart.md"):
        assert sum(1 for block in fenced(page.read_text("utf-8"), "sh") for _ in commands(block)) >= 5


def test_an_option_or_value_that_is_not_there_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        check("compress", ["model.onnx", "--ratoi", "0.5"])
    with pytest.raises(click.BadParameter):
        check("compress", ["model.onnx", "--recipe", "best"])


def test_options_named_in_the_text_are_there() -> None:
    known = {name for c in main.commands.values() for p in c.params for name in (*p.opts, *p.secondary_opts)}
    for page in PAGES:
        if page.name in ("reproduce.md", "design.md"):  # these also name options of the benchmarks
            continue
        inline = " ".join(re.findall(r"`([^`\n]+)`", prose(page.read_text("utf-8"))))
        named = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", inline))
        assert named <= known | FOREIGN | {"--help", "--version"}, page.name


# -- figures


def results(table: str) -> list[dict]:
    return json.loads((ROOT / f"benchmarks/results/{table}.json").read_text("utf-8"))["rows"]


NETWORKS = {
    "LeNet-300-100": "lenet_300_100",
    "LeNet-5": "lenet_5",
    "ResNet-20": "resnet20_cifar10",
    "ResNet-56": "resnet56_cifar10",
    "a VGG": "vgglike_cifar10",
}


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_points_lost_are_those_of_the_results(page: str) -> None:
    lost = {
        (r["model"], r["ratio"], r["recipe"]): r.get("lost") for r in (*results("mnist"), *results("cifar"))
    }
    lines = re.findall(
        r"^\| ([\w -]+), .*? \| ([\d.]+) % \| ((?:[*−\d.]+ \| ){3}[\d.]+) \|$",
        (ROOT / page).read_text("utf-8"),
        re.M,
    )
    assert len(lines) >= 6
    for network, kept, row in lines:
        for recipe, shown in zip(("default", "mlprune", "magnitude", "wanda"), row.split(" | "), strict=True):
            figure = shown.strip("*").replace("−", "-")
            digits = len(figure.partition(".")[2])
            # Half a unit of the last digit that is shown, and what floats add to it.
            measured = lost[NETWORKS[network], float(kept) / 100, recipe]
            assert abs(float(figure) - measured) <= 0.5 * 10**-digits + 1e-6, (network, kept, recipe)


def test_the_picture_shows_the_results() -> None:
    from benchmarks import picture

    text = html.unescape(picture.PICTURE.read_text("utf-8"))
    assert picture.drawn() in text, "out of date: run `python -m benchmarks.picture`"
    assert '"resnet56_cifar10, default": [[100.0, 94.106, 3436822]' in picture.drawn()


def test_the_picture_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import picture

    picture.draw(tmp_path / "a.svg")
    assert picture.drawn() in html.unescape((tmp_path / "a.svg").read_text("utf-8"))


# -- the site


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in BUILT_BY),
    reason="the extra `docs` is not installed",
)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.parent.name: path.read_text("utf-8") for path in tmp_path.rglob("*/index.html")}
    assert "quantize_static" in pages["classifier"] and "BaseHTTPRequestHandler" in pages["classifier"]
    assert "<math" in pages["how-it-works"] and "--max-drop" in pages["cli"]
    assert "compress_to_goal" in pages["api"]
    assert (tmp_path / "images/accuracy.svg").is_file() and (
        tmp_path / "results/small_conv_fig3.svg"
    ).is_file()
    scripts = re.findall(r'<(?:script|link)[^>]+(?:src|href)="(https?:[^"]+)"', "".join(pages.values()))
    assert not scripts, "a page fetches from elsewhere"
