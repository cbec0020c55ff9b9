"""Resident memory of this process, as the operating system counts it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/statm")
_MMAP_THRESHOLD = -3  # glibc's number of this parameter; setting it also stops it from growing
_LARGE = 1 << 20


def resident() -> int:
    """Bytes now; where the system tells only the peak, that; 0 where it tells nothing."""
    if _STATUS.exists():
        return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak()


def peak() -> int:
    """Bytes at the most, since the process began; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def release() -> None:
    """Give back to the system what was freed: glibc keeps it for later, and it would count as resident."""
    gc.collect()
    _glibc("malloc_trim", 0)


def be_thrifty() -> None:
    """From now on give large arrays back as soon as they are freed: glibc would keep more and more of them."""
    _glibc("mallopt", _MMAP_THRESHOLD, _LARGE)


def _glibc(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library: it has no such call, and keeps less
            getattr(ctypes.CDLL(None), name)(*arguments)
