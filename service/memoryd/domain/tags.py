"""The tags of a memory: sorted by code point, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TAGS = 32
"""Of one memory."""

MAX_GIVEN_TAGS = 1_000
"""That one request may list, repeated ones counted; more are refused unread."""


def as_tags(given: Iterable[str]) -> tuple[str, ...]:
    """The tags as a memory has them."""
    return tuple(sorted(set(given)))


def problem_with_tags(tags: tuple[str, ...]) -> str | None:
    """What is wrong with a caller's tags and what to do about it; None if nothing is."""
    if len(tags) > MAX_TAGS:
        return f"must be at most {MAX_TAGS} different tags; these are {len(tags):,}: send fewer"
    return None
