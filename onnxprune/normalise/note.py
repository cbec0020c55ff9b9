"""Note: one thing the normaliser left alone or had to change, and why; `inspect` prints them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """`name` is the node, value or file the note is about; `reason` one sentence for the user."""

    name: str
    reason: str
