"""Resident memory of this process, as the operating system counts it."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

_STATUS = Path("/proc/self/status")
_MMAP_THRESHOLD = -3  # glibc's number of this parameter; setting it also stops it from growing
_LARGE = 1 << 20
_KEPT = (32 << 20) - (64 << 10)  # its largest threshold, less what an array may take beside its data


def resident() -> int:
    """Bytes now; where the system tells only the peak, that; 0 where it tells nothing."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """Bytes at the most, since the process began; 0 where the system does not tell."""
    found = _status("VmHWM")
    if found:  # `getrusage` counts what the parent had, too
        return found
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    """A field of Linux's own record, in bytes; 0 elsewhere."""
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def release() -> None:
    """Give back to the system what was freed: glibc keeps it for later, and it would count as resident."""
    gc.collect()
    _glibc("malloc_trim", 0)


def be_thrifty() -> None:
    """From now on give large arrays back as soon as they are freed: glibc would keep ever more of them."""
    _glibc("mallopt", _MMAP_THRESHOLD, _LARGE)


def be_generous() -> None:
    """From now on keep what arrays of up to 32 MB leave for the next ones, unless thrift was asked for.

    Fresh memory costs a fault a page. glibc does this by itself once it has freed one array of that size.
    """
    np.empty(_KEPT, np.uint8)


def _glibc(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library: it has no such call, and keeps less
            getattr(ctypes.CDLL(None), name)(*arguments)
