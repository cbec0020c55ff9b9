"""Imports point downward only; onnxruntime, torch and pickle stay where they belong."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent / "onnxprune"

#: The layers, top to bottom. A module imports from its own package and from the layers below, never upward
#: and never from a neighbour on its own layer. `__init__` is the package itself: its public names.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("__init__",),
    ("staged", "goals", "curve", "gate"),
    ("pipeline", "bench", "unpacking"),
    ("finetune",),
    ("report",),
    ("evaluate", "footprint", "output", "prepared"),
    ("figures",),
    ("prune",),
    ("regrowth",),
    ("ranking",),
    ("room", "task"),
    ("cut",),
    ("widths",),
    ("sweep", "passes", "speeds"),
    ("plan", "budget"),
    ("allocation", "shares"),
    ("saliency",),
    ("dual",),
    ("refit",),
    ("cluster",),
    ("statistics",),
    ("gradient",),
    ("units",),
    ("layers",),
    ("grams",),
    ("im2col",),
    ("rows",),
    ("data",),
    ("algebra", "liveness"),
    ("session",),
    ("model",),
    ("normalise", "metric", "aims"),
    ("comparable", "tensors"),
    (
        "clock",
        "edits",
        "emit",
        "files",
        "intervals",
        "memory",
        "options",
        "plugins",
        "progress",
        "reading",
        "rounds",
        "solve",
    ),
    ("spilling", "threads"),
    ("errors",),
)
RANK = {part: -depth for depth, layer in enumerate(LAYERS) for part in layer}

#: Third-party module -> the only parts of the package that may import it.
CONFINED = {
    "onnxruntime": {"session"},
    "torch": {"finetune", "algebra"},
    "matplotlib": {"report"},
    "ray": {"cluster"},
}
#: Reading a file must never run code.
FORBIDDEN = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


class Import(NamedTuple):
    """One imported module: `source` (path from the package's root), line, dotted name."""

    source: str
    line: int
    target: str

    @property
    def part(self) -> str:
        return self.source.removesuffix(".py").split("/")[0]


def imports(package: Path) -> Iterator[Import]:
    """Yield every import of every module, also those inside functions and `if TYPE_CHECKING`."""
    for path in sorted(package.rglob("*.py")):
        source = path.relative_to(package).as_posix()
        parents = (package.name, *path.relative_to(package).parts[:-1])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), source)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(source, node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom):
                above = parents[: len(parents) + 1 - node.level] if node.level else ()
                base = [*above, *filter(None, [node.module])]
                for alias in node.names:
                    yield Import(source, node.lineno, ".".join([*base, alias.name]))


def problem(found: Import, package: str, parts: set[str]) -> str | None:
    """Say what is wrong with an import, or None; what has no layer is reported once, on its own account."""
    top, *rest = found.target.split(".")
    if top in FORBIDDEN:
        return f"{top} is imported nowhere in the package"
    if found.part not in CONFINED.get(top, {found.part}):
        return f"{top} is for {' and '.join(f'{package}.{part}' for part in sorted(CONFINED[top]))} alone"
    # `import onnxprune` and `from onnxprune import compress` ask the package itself.
    target = rest[0] if rest and rest[0] in parts | set(RANK) else "__init__"
    if top != package or target == found.part or not {target, found.part} <= set(RANK):
        return None
    if RANK[target] >= RANK[found.part]:
        where = "beside" if RANK[target] == RANK[found.part] else "above"
        return f"{target} lies {where} {found.part}, imports point down"
    return None


def violations(package: Path) -> list[str]:
    """List what breaks the rules, each with its file and line."""
    parts = {p.stem for p in package.iterdir() if p.suffix == ".py" or any(p.rglob("*.py"))}
    return [
        f"{part} has no layer: add it to LAYERS in {Path(__file__).name}"
        for part in sorted(parts - set(RANK))
    ] + [
        f"{found.source}:{found.line}: import {found.target}: {what}"
        for found in imports(package)
        if (what := problem(found, package.name, parts))
    ]


def test_imports_point_downward() -> None:
    assert (found := violations(PACKAGE)) == [], "\n".join(["", *found])


def test_a_broken_layering_is_found(tmp_path: Path) -> None:
    package = tmp_path / "onnxprune"
    (package / "passes").mkdir(parents=True)
    (package / "passes" / "pack.py").write_text(
        "import torch.nn\n"
        "from onnxprune.plan import Plan\n"
        "from onnxprune.passes import cleanup\n"
        "from onnxprune import pipeline\n"
        "from ..sweep import frontier\n"
        "from . import cleanup\n"
    )
    (package / "model.py").write_text("def load():\n    import onnxruntime\n    from pickle import loads\n")
    (package / "session.py").write_text("import onnxruntime\nfrom onnxprune import compress\n")
    (package / "novel.py").write_text("from onnxprune import pipeline\n")
    assert violations(package) == [
        "novel has no layer: add it to LAYERS in test_layering.py",
        "model.py:2: import onnxruntime: onnxruntime is for onnxprune.session alone",
        "model.py:3: import pickle.loads: pickle is imported nowhere in the package",
        "passes/pack.py:1: import torch.nn: torch is for onnxprune.algebra and onnxprune.finetune alone",
        "passes/pack.py:4: import onnxprune.pipeline: pipeline lies above passes, imports point down",
        "passes/pack.py:5: import onnxprune.sweep.frontier: sweep lies beside passes, imports point down",
        "session.py:2: import onnxprune.compress: __init__ lies above session, imports point down",
    ]
