"""Of documents that were found in an order, those that are wanted, as far as they are asked for."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from memoryd.database import statements
from memoryd.documents import rows
from memoryd.documents.filters import matching, place_of, within_reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.documents.filters import DocumentFilter
    from memoryd.documents.newest import Place
    from memoryd.domain.documents import Document

T = TypeVar("T")

MOST_LOOKED_AT = 5_000
"""Documents that one search looks at for its filter."""

MOST_BYTES_LOOKED_INTO = 64 * 1024 * 1024
"""Of bodies that one search looks into for conditions."""

CHUNK = 500
"""Documents that one statement reads without their bodies."""


class Read(Protocol):
    """Runs a body that reads."""

    async def __call__(self, body: Callable[[Connection], T]) -> T: ...


class Picking:
    """What one search has come to."""

    def __init__(
        self,
        read: Read,
        dialect: Dialect,
        wanted: DocumentFilter,
        *,
        limit: int,
        skip: int,
        now: datetime,
    ) -> None:
        """`skip`: how many of those that are wanted are passed over first."""
        self._read = read
        self._dialect = dialect
        self._wanted = wanted
        self._now = now
        self._skip = skip
        self._limit = limit
        self._looked_at = 0
        self._looked_into = 0
        self.found: list[Document] = []
        """In order, without bodies."""
        self.is_exhausted = False
        """Whether as much was looked at as one search may."""

    @property
    def is_full(self) -> bool:
        return len(self.found) == self._limit

    @property
    def missing(self) -> int:
        """How many of those that are wanted would still be passed over or picked."""
        return self._skip + self._limit - len(self.found)

    @property
    def most(self) -> int:
        """How many places are worth finding."""
        return self.missing if self._wanted.is_empty else MOST_LOOKED_AT - self._looked_at

    async def pick(self, places: Iterable[Place]) -> None:
        """Go on with the next places, in order, for as long as any is missing."""
        remaining = iter(places)
        while not self.is_full and not self.is_exhausted:
            size = min(CHUNK, MOST_LOOKED_AT - self._looked_at)
            chunk = [*islice(remaining, size)]
            if not chunk:
                self.is_exhausted = size == 0 and next(remaining, None) is not None
                return
            self._looked_at += len(chunk)
            outlines = await self._outlines(chunk)
            while outlines and not self.is_full and not self.is_exhausted:
                part = within_reach(outlines, self._wanted)
                outlines = outlines[len(part) :]
                for document in await self._matching(part):
                    if self._skip:
                        self._skip -= 1
                    elif not self.is_full:
                        self.found.append(document)

    async def _outlines(self, chunk: Sequence[Place]) -> Sequence[Document]:
        """Those that are there, in the order of their places."""
        found = {
            place_of(document): document
            for document in await self._read(partial(self._look_up, rows.outlines_by_name, chunk))
        }
        there = (found.get(place) for place in chunk)
        return [one for one in there if one is not None and not one.is_expired(self._now)]

    async def _matching(self, part: Sequence[Document]) -> Sequence[Document]:
        if self._wanted.conditions:
            self._looked_into += sum(document.size for document in part)
            self.is_exhausted = self._looked_into > MOST_BYTES_LOOKED_INTO
        return await matching(part, self._wanted, self.complete)

    async def complete(self, found: Sequence[Document]) -> Sequence[Document]:
        """Read documents again with their bodies; what is gone by now is left out."""
        if not found:
            return ()
        places = [place_of(document) for document in found]
        full = {
            place_of(document): document
            for document in await self._read(partial(self._look_up, rows.full_by_name, places))
        }
        return [full[place] for place in places if place in full]

    def _look_up(
        self,
        statement: Callable[[Dialect], Select[Any]],
        places: Iterable[Any],
        connection: Connection,
    ) -> Sequence[Document]:
        keys = sorted((*session, *name) for session, name in places)
        bound = self._dialect.bind(rows.KEY, keys)
        return [
            *map(rows.document_of, statements.fetch(connection, statement(self._dialect), bound))
        ]
