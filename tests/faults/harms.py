"""What can go wrong with the events that a watcher receives, whatever they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Events = list[Any]


def miss(events: Events) -> None:
    del events[2]


def double(events: Events) -> None:
    events.insert(2, events[2])


def reorder(events: Events) -> None:
    events[2:4] = reversed(events[2:4])


def cut_short(events: Events) -> None:
    events.pop()


HARMS: tuple[Callable[[Events], None], ...] = (miss, double, reorder, cut_short)
