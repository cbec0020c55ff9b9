"""Write `ops.md`: which operators are understood, read off the tables of the package.

`python docs/generate_ops.py`; `tests/test_docs.py` fails while the page is not what this would write.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxprune.finetune import ops as torch_functions
from onnxprune.finetune.ops import FUNCTIONS
from onnxprune.finetune.support import STRUCTURE
from onnxprune.gradient import rules as gradient_rules
from onnxprune.gradient.rules import NO_GRADIENT, VJP
from onnxprune.layers import KINDS, LEFT_ALONE
from onnxprune.units.rules import RULES

TOPICS = {
    op: module.name
    for module in pkgutil.iter_modules(torch_functions.__path__)
    for op in getattr(import_module(f"{torch_functions.__name__}.{module.name}"), module.name.upper(), ())
}
PAGE = Path(__file__).with_name("ops.md")

HEAD = """\
# Operators

<!-- Written by docs/generate_ops.py from the tables of the package: edit those, and run it again. -->

What onnxprune knows of the operators of ONNX's default domain, after normalisation (`onnxprune/normalise`).
An operator may be known to one part and not to another.

| column | table | an empty cell means |
| --- | --- | --- |
| layer: its weights can be pruned | `KINDS` in `onnxprune/layers` | it has no weights, or they stay |
| gradient: the module of its rule; *zero*: none by definition | `VJP` and `NO_GRADIENT` in \
`onnxprune/gradient/rules` | no gradient reaches what is in front of it |
| units: the rule that ties what must be cut together | `RULES` in `onnxprune/units` | \
no unit next to it is cut |
| torch: the module of its function | `FUNCTIONS` in `onnxprune/finetune/ops` | \
a model with it is not fine-tuned |

An operator that is not listed has four empty cells. `onnxprune inspect MODEL` says what that means for a
model.

"""

FORMS = """
## Forms without a rule

A node in one of these forms counts as an operator with an empty cell; … stands for a name or a number.

"""


def page() -> str:
    """The whole text of `ops.md`."""
    ops = sorted({*KINDS, *LEFT_ALONE, *VJP, *NO_GRADIENT, *RULES, *FUNCTIONS, *STRUCTURE})
    known = _table(["operator", "layer", "gradient", "units", "torch"], ([op, *_cells(op)] for op in ops))
    return HEAD + known + FORMS + _table(["column", "form", "of"], _forms())


def _cells(op: str) -> tuple[str, str, str, str]:
    layer = "yes" if op in KINDS else LEFT_ALONE.get(op, "")
    zero = "*zero*" if op in NO_GRADIENT else ""
    gradient = VJP[op].__module__.rpartition(".")[2] if op in VJP else zero
    units = _name(RULES[op]).strip("_").replace("_", " ") if op in RULES else ""
    return layer, gradient, units, TOPICS.get(op, "the converter" if op in STRUCTURE else "")


def _forms() -> Iterator[list[str]]:
    for module in pkgutil.iter_modules(gradient_rules.__path__, f"{gradient_rules.__name__}."):
        for form in sorted(set(_raised(import_module(module.name)))):
            yield ["gradient", form, f"module {module.name.rpartition('.')[2]}"]
    operators: dict[str, list[str]] = {}
    for op, rule in sorted(RULES.items()):
        for form in _returned(rule):
            operators.setdefault(form, []).append(op)
    yield from (["units", form, ", ".join(ops)] for form, ops in sorted(operators.items()))


def _raised(module: ModuleType) -> Iterator[str]:
    """What the gradient rules of a module raise `NoRule` with."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.Call(func=ast.Name(id="NoRule"), args=[message]):
                yield from _text(message)


def _returned(rule: Callable[..., Any]) -> Iterator[str]:
    """The reasons that a tie rule returns."""
    for function in ast.parse(inspect.getsource(import_module(rule.__module__))).body:
        if isinstance(function, ast.FunctionDef) and function.name == _name(rule):
            for node in ast.walk(function):
                yield from _text(node.value) if isinstance(node, ast.Return) else ()


def _name(rule: Callable[..., Any]) -> str:
    """The function at module level that is the rule, or makes it."""
    return rule.__qualname__.partition(".")[0]


def _text(expression: ast.expr | None) -> Iterator[str]:
    match expression:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                "…" if isinstance(part, ast.FormattedValue) else next(_text(part)) for part in parts
            )


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
