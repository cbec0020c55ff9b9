"""The commands: parse, call the library, print. What they can do, the library can.

Everything heavy is imported inside them, so that `--help` is quick.
"""

import click

from onnxprune.cli.commands.bench import bench
from onnxprune.cli.commands.calibrate import calibrate
from onnxprune.cli.commands.compress import compress
from onnxprune.cli.commands.evaluate import evaluate
from onnxprune.cli.commands.finetune import finetune
from onnxprune.cli.commands.inspect import inspect
from onnxprune.cli.commands.sweep import sweep
from onnxprune.cli.commands.unpack import unpack
from onnxprune.cli.program import Program, show_version


@click.group(cls=Program)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=show_version)
def main() -> None:
    """Make ONNX models smaller by pruning: no training framework, only onnxruntime."""


for _command in (compress, sweep, calibrate, evaluate, finetune, inspect, bench, unpack):
    main.add_command(_command)
