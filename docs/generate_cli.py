"""Write `cli.md`: the commands and their options, read off the program itself.

`python docs/generate_cli.py`; `tests/test_docs.py` fails while the page is not what this would write.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import click

from onnxprune.cli import main

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# Command line

<!-- Written by docs/generate_cli.py from the commands: edit those, and run it again. -->

{about}
`onnxprune COMMAND --help` says the same as this page.

Fractions may be percentages (`0.04` or `4%`), sizes have units (`2MB`, `1.5MiB`).
What `--data` and `--eval` take is in [Data](data.md).
Exit codes: 0 done, 1 could not be done, 2 wrong use, 3 a limit of `gate` fails;
[more about them](ci.md#exit-codes).

| command | what it does |
| --- | --- |
"""


def page() -> str:
    """The whole text of `cli.md`."""
    commands = [main.commands[name] for name in main.list_commands(click.Context(main))]
    overview = (f"| [`{c.name}`](#{c.name}) | {_paragraphs(c)[0]} |" for c in commands)
    head = HEAD.format(about=_paragraphs(main)[0]) + "\n".join(overview)
    return "\n\n".join([head, *(_section(command) for command in commands)]) + "\n"


def _section(command: click.Command) -> str:
    context = click.Context(command, info_name=f"onnxprune {command.name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    table = ["| option | meaning |", "| --- | --- |", *_rows(command, context)]
    parts = [f"## {command.name}", *_paragraphs(command), f"```text\n{usage}\n```", "\n".join(table)]
    return "\n\n".join(parts)


def _rows(command: click.Command, context: click.Context) -> Iterator[str]:
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and isinstance(param, click.Option):  # arguments are in the usage
            names, meaning = record
            # Renderers disagree on a bar in a code span in a table; all take it as an entity in HTML.
            yield f"| <code>{html.escape(names).replace('|', '&#124;')}</code> | {_cell(meaning)} |"


def _paragraphs(command: click.Command) -> list[str]:
    """What the command says of itself; line breaks within a paragraph mean nothing."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", command.help or "")]


def _cell(text: str) -> str:
    """Text of one table cell: no end of a cell in it, and no emphasis where a pattern has asterisks."""
    plain = " ".join(text.split()).replace("|", "&#124;")
    return re.sub(r"'\*[^' ]*'", lambda pattern: f"`{pattern[0]}`", plain)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
