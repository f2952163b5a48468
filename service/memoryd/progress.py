"""Progress of a long step: a bar on a terminal, elsewhere a line in the log every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("memoryd.progress")

SECONDS_BETWEEN_LINES = 3.0


@contextmanager
def progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far `doing` has come; give the function to call for each piece done."""
    shown = _bar if sys.stderr.isatty() else _lines
    with shown(doing, total) as advance:
        yield advance


@contextmanager
def _bar(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console  # noqa: PLC0415  only where there is a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    done = 0
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if done >= total or now - last >= SECONDS_BETWEEN_LINES:
            logger.info("%s: %s of %s", doing, f"{done:,}", f"{total:,}")
            last = now

    yield advance
