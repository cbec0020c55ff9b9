"""The program around the commands: every error one line on stderr, with the exit code of its kind.

Exit codes: 0 done; 1 it could not be done (bad model or data, nothing to write to, Ctrl-C); 2 wrong use;
3 a model that `gate` looked at does not keep to its limits. Anything else is a bug in onnxprune and shows its
traceback.
"""

from __future__ import annotations

import shlex
from importlib import metadata
from typing import Any

import click

from onnxprune.errors import OnnxPruneError

_ARGUMENTS = f"{__name__}.arguments"


def command_line() -> str:
    """The command that is running, as one would type it into a shell again."""
    return shlex.join(["onnxprune", *click.get_current_context().meta[_ARGUMENTS]])


class Program(click.Group):
    """A group of commands whose errors are one line each, and which knows how it was called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments for `command_line`, and parse them."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command of `ctx`."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _fail(ctx, error.format_message(), error.exit_code)
        except OnnxPruneError as error:
            _fail(ctx, str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail(ctx, "interrupted; no file was left half written", 1)
        except MemoryError:
            _fail(ctx, "out of memory; use a smaller --batch-size or fewer --samples", 1)
        except BrokenPipeError:
            raise  # the reader of our output went away: click ends quietly
        except OSError as error:
            _fail(
                ctx, f"{error.filename or 'a file'}: {error.strerror or error}; nothing was written to it", 1
            )


def _fail(ctx: click.Context, message: str, code: int) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    ctx.exit(code)


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Callback of `--version`: print the installed version and stop."""
    if value and not ctx.resilient_parsing:
        try:
            click.echo(f"onnxprune {metadata.version('onnxprune')}")
        except metadata.PackageNotFoundError:
            click.echo("onnxprune, not installed: running from its source")
        ctx.exit()
