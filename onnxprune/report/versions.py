"""What a report was made with."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("onnxprune", "onnx", "onnx_ir", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy")


def versions(*more: str) -> dict[str, str]:
    """Python's version and those of the packages that decide what comes out, `more` among them."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *more):
        with suppress(PackageNotFoundError):  # one of the two runtimes is not there
            found[name] = version(name)
    return found
