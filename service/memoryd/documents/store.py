"""What the rest of the house asks of the store of documents."""

from __future__ import annotations

import asyncio
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import case, null

from memoryd.database import statements
from memoryd.database.batch_loader import BatchLoader
from memoryd.database.tables import documents
from memoryd.documents import rows
from memoryd.documents.filters import matching, within_reach
from memoryd.documents.history import read_bodies, read_versions
from memoryd.documents.listing import count_documents, read_next
from memoryd.documents.namespaces import read_namespaces
from memoryd.documents.ranges import sessions_in
from memoryd.documents.writes import RefreshDocuments, RemoveDocuments, WriteDocuments
from memoryd.domain.errors import DocumentNotFound
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from memoryd.database.dialect import Dialect
    from memoryd.database.engine import Database
    from memoryd.documents.filters import DocumentFilter
    from memoryd.documents.namespaces import Bound, Pattern
    from memoryd.documents.writes import DocumentsOutcome, DocumentWrite, MoveDocuments
    from memoryd.domain.documents import Document, DocumentName
    from memoryd.domain.sessions import TenantRange
    from memoryd.sessions.replica import SessionReads

    _Key = tuple[str, str, str, str]
    """Tenant, session id, namespace, key."""

SMALL_BYTES = 16 * 1024
"""Bodies up to this size are read with all that wait; larger ones by themselves, so that small
reads do not wait for them."""

LARGE_READS = 4
"""How many reads of larger bodies are under way at once."""

PAGE_BYTES = 3 * 1024 * 1024
"""Of bodies in one page, unless one is larger."""

SCAN_LIMIT = 5_000
"""Documents that one page looks at; a page whose filter matches few ends before it is full."""

CHUNK = 500
"""Documents that one statement reads without their bodies."""

DELETE_BATCH = 1_000
"""Documents that one transaction deletes."""


class DocumentPage(NamedTuple):
    documents: Sequence[Document]
    next_after: DocumentName | None
    """Where to go on; None: this was the last page."""


class DocumentStore:
    """The documents of all sessions. `now` is the caller's own time; `timeout` is in seconds.

    Every method raises what Database raises.
    """

    def __init__(
        self,
        database: Database,
        reads: SessionReads,
        submit: Callable[[DocumentWrite], Awaitable[DocumentsOutcome]],
    ) -> None:
        """`submit` has a write committed with others."""
        self._database = database
        self._reads = reads
        self._submit = submit
        self._by_name: BatchLoader[_Key, Document] = BatchLoader(database, self._read_by_name)
        self._large = asyncio.Semaphore(LARGE_READS)

    async def write(self, write: WriteDocuments) -> DocumentsOutcome:
        """Put and delete: all or none; give what was put, None for what was deleted.

        Raises DocumentNotFound, DocumentAlreadyExists, EtagMismatch, RequestIdReused,
        QuotaExceeded.
        """
        return await self._submit(write)

    async def put(self, write: WriteDocuments) -> Document:
        """As `write`, of one put."""
        (document,) = await self._submit(write)
        return cast("Document", document)

    async def move(self, write: MoveDocuments) -> Sequence[Document]:
        """Give what was moved by its new names, without bodies.

        Raises DocumentNotFound, DocumentAlreadyExists, InvalidRequest.
        """
        return cast("Sequence[Document]", await self._submit(write))

    async def refresh(self, session: Session, found: Sequence[Document]) -> Sequence[Document]:
        """Have those of some documents that have a ttl live for it from now; give all of them."""
        names = tuple(document.name for document in found if document.ttl is not None)
        if not names:
            return found
        refreshed = {
            document.name: document.expires_at
            for document in await self._submit(RefreshDocuments(session, names))
            if document is not None
        }
        return [
            document._replace(expires_at=refreshed.get(document.name, document.expires_at))
            for document in found
        ]

    async def get(
        self, session: Session, name: DocumentName, *, now: datetime, timeout: float | None
    ) -> Document:
        """Raises DocumentNotFound."""
        document = await self._by_name.get((*session, *name), timeout=timeout)
        if document is not None and document.body is None:
            async with self._large:
                document = (await self._full(session, [name], timeout)).get(name)
        if document is None or document.is_expired(now):
            raise DocumentNotFound(str(name))
        return document

    async def get_many(
        self,
        session: Session,
        names: Sequence[DocumentName],
        *,
        now: datetime,
        timeout: float | None,
    ) -> dict[DocumentName, Document]:
        """Give those that there are; once PAGE_BYTES are full, the rest without bodies."""
        dialect, key = self._database.dialect, rows.KEY
        unique = list(dict.fromkeys(names))

        def body(connection: Connection) -> dict[DocumentName, Document]:
            bound = dialect.bind(key, [(*session, *name) for name in unique])
            found = statements.fetch(connection, rows.outlines_by_name(dialect), bound)
            outlines = {d.name: d for d in map(rows.document_of, found) if not d.is_expired(now)}
            room = PAGE_BYTES
            wanted: list[DocumentName] = []
            for name in unique:
                if name in outlines and (not wanted or outlines[name].size <= room):
                    room -= outlines[name].size
                    wanted.append(name)
            full = self._read_full(connection, session, wanted)
            # What went meanwhile is gone; what was put again is as it is now.
            present = outlines.keys() - set(wanted) | full.keys()
            return {n: d for n, d in {**outlines, **full}.items() if n in present}

        if not unique:
            return {}
        async with self._large:
            return await self._reads.read(session, body, timeout=timeout)

    async def page(
        self,
        session: Session,
        prefix: str,
        wanted: DocumentFilter,
        *,
        after: DocumentName | None,
        size: int,
        with_bodies: bool,
        now: datetime,
        timeout: float | None,
    ) -> DocumentPage:
        """At most `size` documents of namespaces that begin with a prefix, by name."""
        chunk = min(size + 1, CHUNK)
        found: list[Document] = []
        room, position, scanned = PAGE_BYTES, after, 0
        while True:
            read = partial(
                read_next, session=session, prefix=prefix, after=position, how_many=chunk, now=now
            )
            read_outlines = await self._reads.read(session, read, timeout=timeout)
            outlines = within_reach(read_outlines, wanted)
            for document in await self._matching(session, outlines, wanted, timeout):
                room -= document.size if with_bodies else 0
                if found and (len(found) == size or room < 0):
                    names = [one.name for one in found]
                    return DocumentPage(
                        await self._complete(session, found, timeout) if with_bodies else found,
                        names[-1],
                    )
                found.append(document)
            is_last = len(read_outlines) < chunk and len(outlines) == len(read_outlines)
            position = outlines[-1].name if outlines else position
            scanned += len(outlines)
            is_far = scanned >= SCAN_LIMIT or len(outlines) < len(read_outlines)
            if is_last or is_far:
                complete = await self._complete(session, found, timeout) if with_bodies else found
                return DocumentPage(complete, None if is_last else position)

    async def _matching(
        self,
        session: Session,
        outlines: Sequence[Document],
        wanted: DocumentFilter,
        timeout: float | None,
    ) -> Sequence[Document]:
        async def complete(found: Sequence[Document]) -> Sequence[Document]:
            async with self._large:
                return await self._complete(session, found, timeout)

        return await matching(outlines, wanted, complete)

    async def _complete(
        self, session: Session, found: Sequence[Document], timeout: float | None
    ) -> Sequence[Document]:
        """Read the bodies; what is gone by now is left out."""
        full = await self._full(session, [document.name for document in found], timeout)
        return [full[document.name] for document in found if document.name in full]

    async def count(
        self, session: Session, prefix: str, *, now: datetime, timeout: float | None
    ) -> int:
        """How many documents there are of namespaces that begin with a prefix."""
        return await self._database.read(
            lambda c: count_documents(c, session, prefix, now),
            tenants=(session.tenant,),
            timeout=timeout,
        )

    async def delete_all(self, session: Session, prefix: str, *, now: datetime) -> int:
        """Delete documents of namespaces that begin with a prefix; answer how many."""
        deleted = 0
        position: DocumentName | None = None
        while True:
            read = partial(
                read_next,
                session=session,
                prefix=prefix,
                after=position,
                how_many=DELETE_BATCH,
                now=now,
            )
            outlines = await self._database.read(read, tenants=(session.tenant,))
            if outlines:
                names = tuple(document.name for document in outlines)
                gone = await self._submit(RemoveDocuments(session, names))
                deleted += sum(document is not None for document in gone)
                position = names[-1]
            if len(outlines) < DELETE_BATCH:
                return deleted

    async def versions(
        self,
        session: Session,
        name: DocumentName,
        *,
        before: int,
        size: int,
        now: datetime,
        timeout: float | None,
    ) -> tuple[Sequence[Document], int | None]:
        """Versions of one document before a revision, the newest first; and where to go on."""

        def body(connection: Connection) -> tuple[Sequence[Document], int | None]:
            dialect = self._database.dialect
            found = read_versions(connection, session, name, before, min(size, CHUNK) + 1)
            bound = dialect.bind(rows.KEY, [(*session, *name)])
            row = statements.fetch(connection, rows.outlines_by_name(dialect), bound)
            if not row or rows.document_of(row[0]).is_expired(now):
                return (), None
            page: list[Document] = []
            room = PAGE_BYTES
            for version in found:
                room -= version.size
                if page and (len(page) == size or room < 0):
                    break
                page.append(version)
            revisions = [version.revision for version in page]
            bodies = read_bodies(connection, dialect, session, revisions)
            complete = [v._replace(body=bodies[v.revision]) for v in page if v.revision in bodies]
            return complete, revisions[-1] if len(page) < len(found) else None

        return await self._reads.read(session, body, timeout=timeout)

    async def namespaces(
        self,
        whose: Session | TenantRange,
        pattern: Pattern,
        *,
        after: Bound | None,
        size: int,
        now: datetime,
        timeout: float | None,
    ) -> tuple[list[Sequence[str]], Bound | None]:
        """Namespaces that hold a document, sorted; and where to go on.

        Raises InvalidRequest where the sessions are too many.
        """
        dialect = self._database.dialect

        def of(connection: Connection, sessions: Sequence[Session]) -> Any:
            return read_namespaces(
                connection, dialect, sessions, pattern, after=after, size=size, now=now
            )

        if isinstance(whose, Session):
            return await self._reads.read(whose, lambda c: of(c, [whose]), timeout=timeout)
        return await self._database.read(
            lambda c: of(c, sessions_in(c, dialect, whose)),
            tenants=(whose.tenant,),
            timeout=timeout,
        )

    async def _full(
        self, session: Session, names: Sequence[DocumentName], timeout: float | None
    ) -> dict[DocumentName, Document]:
        if not names:
            return {}
        return await self._reads.read(
            session, lambda c: self._read_full(c, session, names), timeout=timeout
        )

    def _read_full(
        self, connection: Connection, session: Session, names: Sequence[DocumentName]
    ) -> dict[DocumentName, Document]:
        if not names:
            return {}
        dialect = self._database.dialect
        bound = dialect.bind(rows.KEY, sorted((*session, *name) for name in names))
        found = map(
            rows.document_of, statements.fetch(connection, rows.full_by_name(dialect), bound)
        )
        return {document.name: document for document in found}

    def _read_by_name(
        self, connection: Connection, wanted: Collection[_Key]
    ) -> Mapping[_Key, Document]:
        """Read them, with those bodies that are small."""
        dialect = self._database.dialect
        bound = dialect.bind(rows.KEY, sorted(wanted))
        found = map(rows.document_of, statements.fetch(connection, _small(dialect), bound))
        return {(*document.session, *document.name): document for document in found}


@cache
def _small(dialect: Dialect) -> Select[Any]:
    body = case((documents.c.size <= SMALL_BYTES, documents.c.body), else_=null())
    return dialect.look_up(rows.KEY, (*rows.OUTLINE, body.label("body")))
