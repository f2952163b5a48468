"""What a run promises, and which codes leave open whether a write was committed."""

from __future__ import annotations

import enum
from typing import NamedTuple

IN_DOUBT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"})
"""Codes after which a write may have been committed. After any other it was not."""


class Broken(enum.Enum):
    """A broken promise."""

    LOST = "an acknowledged write is missing"
    DOUBLED = "a write is stored twice"
    HALF = "a failed batch or append is stored in part"
    INTERLEAVED = "the messages of one append are not one after the other, or not in order"
    UNLINKED = "a message names another one than that before it as its parent"
    TAKEN = "a message was popped by two calls"
    UNWANTED = "something is stored that no caller wrote, or that was refused"
    GAP = "a session's revisions have a gap or a repeat"
    COUNT = "a session's row says that it holds another number of something than there are"
    WATCH = "a watcher did not receive each change once and in order"
    BACKWARDS = "a read shows a state older than what was known before it started"
    PHANTOM = "a read shows a state that never existed"
    SHARED = "two live memories have one key"


class Fault(NamedTuple):
    kind: Broken
    what: str


def shortened(body: bytes) -> str:
    """The beginning of what a fault is about."""
    return repr(body[:60])
