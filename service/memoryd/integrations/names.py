"""Ids of sessions and conversations that adapters make of names of their frameworks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SESSION_ID = 255
"""Characters."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def prefix_of(prefix: str) -> str:
    """The prefix of an adapter's sessions. Raises ValueError for what is none."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"prefix: {prefix!r} is not 1-64 of A-Z a-z 0-9 _ -, a letter or digit first"
        )
    return prefix


def session_id(prefix: str, labels: Iterable[str]) -> str:
    """`prefix:label:label`, where every other byte than `A-Z a-z 0-9 _ -` of a label is `@HH`.

    Raises ValueError where that has more than 255 characters.
    """
    found = ":".join([prefix, *map(escaped, labels)])
    if len(found) > MAX_SESSION_ID:
        raise ValueError(
            f"the id {found[:40]}… has {len(found)} characters, more than {MAX_SESSION_ID}:"
            " give shorter names, or fewer of them"
        )
    return found


def labels_of(prefix: str, session: str) -> list[str]:
    """The labels that `session_id` made an id of."""
    return [unescaped(label) for label in session.removeprefix(f"{prefix}:").split(":")]


def escaped(label: str) -> str:
    """A label as it stands in session ids."""
    return "".join(chr(byte) if byte in _PLAIN else f"@{byte:02X}" for byte in label.encode())


def unescaped(label: str) -> str:
    """The label that stands so in a session id."""
    return unquote_to_bytes(label.replace("@", "%")).decode()
