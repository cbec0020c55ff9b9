"""`python -m onnxprune` is `onnxprune`."""

from onnxprune.cli import main

main()
