"""Plugins: code of the user's own, named `module:object` as entry points are, and how its errors read.

Modules are looked for in the working directory first, then in the environment, as `python -m` does.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from typing import Any

from onnxprune.errors import OnnxPruneError, PluginError, UsageError


def load_object(spec: str) -> Any:
    """The object that `module:object` names; `object` may have dots.

    Raises:
        UsageError: not of that form, no such module, or nothing of that name in it.
        PluginError: the module fails when it is imported.
    """
    module, found, path = spec.partition(":")
    if not (module and found and path):
        raise UsageError(f"{spec!r} is not MODULE:OBJECT, such as my_metrics:word_accuracy")
    with user_code(f"importing {module!r}"):
        loaded = module_here(module)
    if isinstance(loaded, str):
        raise UsageError(f"{spec!r}: no module {loaded!r} in {os.getcwd()} or the environment")
    try:
        return reduce(getattr, path.split("."), loaded)
    except AttributeError as error:
        names = ", ".join(name for name in vars(loaded) if not name.startswith("_")) or "nothing"
        raise UsageError(f"{spec!r}: the module has no {path!r}; it has {names}") from error


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Say in one sentence what goes wrong in code of the user's own, and where.

    Raises:
        PluginError: any exception inside but our own.
    """
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        where = f"{os.path.basename(last.filename)}, line {last.lineno}"
        said = f"{type(error).__name__}{f': {reason}' if reason else ''}"
        raise PluginError(f"{what} failed: {said} ({where})") from error


def module_here(module: str) -> Any:
    """The module, looked for in the working directory first; where it is not there, the name that is missing.

    What the module itself raises when it is imported comes through as it is.
    """
    here = os.getcwd()
    if here not in sys.path:  # for good: what it imports later, inside functions, lies there too
        sys.path.insert(0, here)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return error.name
