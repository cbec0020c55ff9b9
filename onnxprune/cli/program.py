"""The program around the commands: every error one line on stderr, with the exit code of its kind.

Exit codes: 0 done; 1 it could not be done (bad model or data, nothing to write to, Ctrl-C); 2 wrong use.
Anything else is a bug in onnxprune and shows its traceback.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import click

from onnxprune.errors import OnnxPruneError


class Program(click.Group):
    """A group of commands whose errors are one line each."""

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
