"""The commands: parse, call the library, print. What they can do, the library can.

Everything heavy is imported inside them, so that `--help` is quick.
"""

import click

from onnxprune.cli.commands.bench import bench
from onnxprune.cli.commands.calibrate import calibrate
from onnxprune.cli.commands.compress import compress
from onnxprune.cli.commands.evaluate import evaluate
from onnxprune.cli.commands.finetune import finetune
from onnxprune.cli.commands.gate import gate
from onnxprune.cli.commands.inspect import inspect
from onnxprune.cli.commands.pack import pack
from onnxprune.cli.commands.sweep import sweep
from onnxprune.cli.commands.unpack import unpack
from onnxprune.cli.program import Program, show_version

_EXIT_CODES = (
    "Exit codes: 0 done, 1 could not be done, 2 wrong use, 3 a limit of `gate` fails. More about them is in "
    "docs/ci.md."
)


@click.group(cls=Program, epilog=_EXIT_CODES)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=show_version)
def main() -> None:
    """Make ONNX models smaller by pruning: no training framework, only onnxruntime."""


for _command in (compress, sweep, calibrate, evaluate, finetune, inspect, bench, gate, unpack, pack):
    main.add_command(_command)
