"""The command line, in reading order: `commands`, `parameters`, `files`, `running`, `program` (errors)."""

from onnxprune.cli.commands import main

__all__ = ["main"]
