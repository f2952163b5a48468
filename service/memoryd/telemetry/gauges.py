"""What is measured when it is asked for, of this process and of the workers beside it.

Each worker answers on a socket file in a folder that they share, so that a scrape of any of them
tells of all, as they are; one that has died, or hangs, is left out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from memoryd.telemetry.cells import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Gauge = tuple[str, tuple[str, ...], float]
"""A metric's name, the values of its labels, and its own."""

ANSWER_SECONDS = 1.0
"""How long a worker may take to answer another."""


class Reading(NamedTuple):
    """What one process tells of itself."""

    worker: str
    """Its number; empty where it is the only one."""
    pid: int
    gauges: Sequence[Gauge]
    collections: Sequence[Mapping[str, int]]
    """What the garbage collector has done, by generation."""


class Place(NamedTuple):
    """Where a worker keeps what it counts, and can be asked."""

    folder: Path
    worker: str

    @property
    def counts(self) -> Path:
        return self.folder / f"{self.worker}{_COUNTS}"

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.worker}{_SOCKET}"


_COUNTS = ".counts"
_SOCKET = ".socket"


def reading(worker: str, gauges: Sequence[Gauge]) -> Reading:
    """That of this process."""
    return Reading(worker, os.getpid(), gauges, gc.get_stats())


class Siblings:
    """The workers of a folder, seen from one of them."""

    def __init__(self, place: Place, read: Callable[[], Reading]) -> None:
        self._place = place
        self._read = read
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer the others. Raises OSError where the socket cannot be made."""
        self._place.socket.unlink(missing_ok=True)  # of the worker that was here before
        try:
            self._server = await asyncio.start_unix_server(self._answer, self._place.socket)
        except OSError as error:  # such as for a name that is too long
            raise OSError(
                f"workers cannot meet at {self._place.socket}: {error};"
                " set TMPDIR to a folder with a shorter name that can be written to"
            ) from error

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._place.socket.unlink(missing_ok=True)

    async def readings(self) -> list[Reading]:
        """What each worker tells of itself, this one too."""
        others = [
            file
            for file in sorted(self._place.folder.glob(f"*{_SOCKET}"))
            if file != self._place.socket
        ]
        asked = await asyncio.gather(*map(_ask, others), return_exceptions=True)
        return [self._read(), *(found for found in asked if isinstance(found, Reading))]

    def counts(self) -> list[Mapping[str, tuple[float, ...]]]:
        """What each worker has counted, those included that have died. Raises OSError."""
        return [read_file(file) for file in sorted(self._place.folder.glob(f"*{_COUNTS}"))]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with suppress(OSError):
            writer.write(json.dumps(self._read()).encode())
            await writer.drain()
        writer.close()


async def _ask(file: Path) -> Reading:
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(file)
        try:
            answer = await reader.read(-1)
        finally:
            writer.close()
    worker, pid, gauges, collections = json.loads(answer)
    return Reading(worker, pid, [(n, tuple(labels), v) for n, labels, v in gauges], collections)
