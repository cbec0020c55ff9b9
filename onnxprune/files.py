"""Files: written beside their place, and put there when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from onnxprune.errors import OutputError


@contextmanager
def replacing(path: Path, what: str = "it") -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end; whatever goes wrong, it leaves nothing.

    Args:
        path: may exist, and then stays as it is until it is replaced.
        what: is written, for the message.

    Raises:
        OutputError: it cannot be written, with the system's reason.
    """
    is_device = path.exists() and not path.is_file()  # it cannot be replaced, only written to
    partial = path if is_device else path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        if not is_device:
            partial.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{path}: {what} cannot be written: {reason}; make room or give another file"
        raise OutputError(message) from error
    finally:
        if not is_device:
            with suppress(OSError):  # an error here must not hide the one that brought us here
                partial.unlink(missing_ok=True)
