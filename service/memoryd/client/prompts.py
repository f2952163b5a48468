"""Memories as text for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from memoryd.client import arguments as args

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CUT = "…"
"""What a text ends with that has lost its end."""


class HasContent(Protocol):
    """A memory."""

    @property
    def content(self) -> str: ...


class HasMemory(Protocol):
    """A memory that was retrieved."""

    @property
    def memory(self) -> HasContent: ...


def line_of_memory(result: HasMemory) -> str:
    """An item of a list; its further lines are indented, so that they begin no item."""
    return "- " + "\n  ".join(result.memory.content.splitlines())


def lines_within(max_chars: int, results: Iterable[HasMemory]) -> list[str]:
    """The lines of the first memories, as many as fit with the line breaks between them."""
    lines: list[str] = []
    room = max_chars
    for result in results:
        line = line_of_memory(result)
        room -= len(line) + bool(lines)
        if room < 0:
            break
        lines.append(line)
    return lines


def cut(text: str, room: int) -> str:
    """A text of at most `room` characters: itself, its beginning, or nothing."""
    if len(text) <= room:
        return text
    return text[: room - len(CUT)] + CUT if room > len(CUT) else ""


class AsPrompt:
    """What can be shown to a model."""

    __slots__ = ()

    results: Sequence[HasMemory]

    def as_prompt(self, *, max_chars: int | None = None) -> str:
        """Give the memories as a list for a prompt, the best first: a line `- content` for each.

        At most `max_chars` characters: whole memories, as many as fit. Where the best one alone
        does not fit, it is cut, and ends with `…`. Empty without results.
        """
        room = args.optional_int32("max_chars", max_chars)
        if room is not None and room <= 0:
            raise ValueError("max_chars: give a number above 0")
        if room is None:
            return "\n".join(map(line_of_memory, self.results))
        lines = lines_within(room, self.results)
        if not lines and self.results:
            return cut(line_of_memory(self.results[0]), room)
        return "\n".join(lines)
