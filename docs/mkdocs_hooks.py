"""What `mkdocs build` needs beyond `mkdocs.yml`: the page, pictures and scripts that live outside `docs/`.

GitHub shows the same sources, so links in them lead through the repository; here they become the site's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

#: Page → links in its source, as they begin there, and as they begin on the site.
LINKS = {
    "index.md": ("](docs/", "]("),
    "reproduce.md": ("](../benchmarks/results/", "](results/"),
    "examples/index.md": ("](../../README.md)", "](../index.md)"),
}
#: A line that is a link to a script: on the site the script stands there.
SCRIPT = re.compile(r"^\[([\w.]+)\]\(\.\./\.\./(examples/[\w.]+\.py)\)$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the front page, and the figures of the benchmarks."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text("utf-8")))
    for figure in sorted(RESULTS.glob("*.svg")):
        files.append(File.generated(config, f"results/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links out of the source's folder into links within the site, and links to scripts into scripts."""
    there, here = LINKS.get(page.file.src_uri, ("", ""))
    moved = markdown.replace(there, here) if there else markdown
    return SCRIPT.sub(lambda found: _listing(found[1], ROOT / found[2]), moved)


def _listing(title: str, script: Path) -> str:
    return f'```python title="{title}"\n{script.read_text("utf-8").rstrip()}\n```'
