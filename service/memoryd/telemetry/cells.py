"""Numbers that outlive the process which counts them, where they are kept in a file.

A file has one writer, and is read by any process of this machine at any time. It is a row of
64-bit floats: first how many are taken; then, entry by entry, the length of a name in floats, how
many numbers it has, the name itself, padded, and the numbers.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIZE_BYTES = 4 * 1024 * 1024
"""Room for every method with every status, and for each reason with each tenant that is told apart.
Only what is used of it takes memory."""

_FLOAT_BYTES = 8
_SCRATCH = 64
"""Numbers at the end that stand for those there is no room for."""

_log = logging.getLogger(__name__)


class Cells:
    """The numbers of one process, in its memory or in a file. One thread writes."""

    def __init__(self, file: Path | None = None) -> None:
        """Go on from what the file has, if there is one. Raises OSError where it cannot be used."""
        if file is None:
            self._map = mmap.mmap(-1, SIZE_BYTES)
        else:
            opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(opened, SIZE_BYTES)
                self._map = mmap.mmap(opened, SIZE_BYTES)
            finally:
                os.close(opened)
        self.numbers = memoryview(self._map).cast("d")
        self._places = _places(self.numbers)
        self._is_full = False

    def place(self, name: str, count: int) -> int:
        """Where the `count` numbers of a name begin; they are 0 where the name is new."""
        found = self._places.get(name)
        if found is not None:
            return found[0]
        encoded = name.encode()
        words = -(-len(encoded) // _FLOAT_BYTES)
        begin = max(int(self.numbers[0]), 1)
        end = begin + 2 + words + count
        if end > len(self.numbers) - _SCRATCH:
            if not self._is_full:
                self._is_full = True
                _log.error("there is no room for further metrics; what they count is lost")
            return len(self.numbers) - _SCRATCH
        self.numbers[begin], self.numbers[begin + 1] = words, count
        at = (begin + 2) * _FLOAT_BYTES
        self._map[at : at + words * _FLOAT_BYTES] = encoded.ljust(words * _FLOAT_BYTES)
        self.numbers[0] = end  # only now, so that no reader meets half an entry
        self._places[name] = (begin + 2 + words, count)
        return begin + 2 + words

    def read(self) -> dict[str, tuple[float, ...]]:
        """The numbers of each name."""
        return _entries(self.numbers, self._places)


def read_file(file: Path) -> dict[str, tuple[float, ...]]:
    """The numbers of each name in a file that another process may write to. Raises OSError."""
    with file.open("rb") as opened:
        head = opened.read(_FLOAT_BYTES)
        if len(head) < _FLOAT_BYTES:
            return {}
        (end,) = struct.unpack("d", head)
        rest = opened.read(max(int(end) - 1, 0) * _FLOAT_BYTES)
    numbers = memoryview(head + rest).cast("d")
    return _entries(numbers, _places(numbers))


def _places(numbers: memoryview[float]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    at, end, raw = 1, min(int(numbers[0]), len(numbers)), numbers.cast("B")
    while at < end:
        words, count = int(numbers[at]), int(numbers[at + 1])
        begin = at + 2
        name = bytes(raw[begin * _FLOAT_BYTES : (begin + words) * _FLOAT_BYTES])
        found[name.decode().rstrip()] = (begin + words, count)
        at = begin + words + count
    return found


def _entries(
    numbers: memoryview[float], places: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[float, ...]]:
    return {name: tuple(numbers[at : at + count].tolist()) for name, (at, count) in places.items()}
