"""First answers to a `request_id`, as far as neither the memory nor a retry says them.

Of a store that made a memory and removed none that is nothing: its row takes about 80 bytes. Any
other has its answer as JSON beside it; see `answers.py`.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from memoryd.database.dialect import Insertion
from memoryd.database.tables import store_receipts
from memoryd.domain.records import Session, StoreOutcome
from memoryd.memories import answers
from memoryd.memories.lookups import lookups_of
from memoryd.memories.saving import as_columns
from memoryd.sessions.lock import SHARD_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Stored
    from memoryd.memories.reader import Reader

KEY = (*SHARD_KEY, "request_id")

_FINGERPRINT_DIGITS = 16
"""Hexadecimal ones that are kept: 64 bits tell a retry from another use well enough."""


class Receipt(NamedTuple):
    """A `request_id` that was answered."""

    session: Session
    request_id: str
    fingerprint: str
    """Of the request, or the beginning of it."""
    memory_id: str | None
    """None: the memory is gone, and nothing says what it was."""
    answer: dict[str, Any]
    created_at: datetime


class _Row(NamedTuple):
    tenant: str
    session_id: str
    request_id: str
    fingerprint: int
    revision: int
    expires_at: datetime | None
    memory_id: str | None
    answer: dict[str, Any] | None


def row_of_store(session: Session, request_id: str, fingerprint: str, stored: Stored) -> _Row:
    memory = stored.memory
    is_plain = stored.outcome is StoreOutcome.CREATED and not stored.evicted_memory_ids
    return _Row(
        *(*session, short(request_id), _as_number(fingerprint)),
        revision=memory.revision,
        expires_at=memory.expires_at,
        memory_id=None if is_plain else memory.memory_id,
        answer=None if is_plain else answers.to_answer(stored),
    )


def row_of_merge(
    session: Session, request_id: str, fingerprint: str, answer: dict[str, Any]
) -> _Row:
    """Of a merge of sessions, which is about no memory alone."""
    key = (*session, short(request_id), _as_number(fingerprint))
    return _Row(*key, revision=0, expires_at=None, memory_id="", answer=answer)


def insertion(rows: Iterable[_Row], now: datetime) -> Insertion:
    """Write at least one."""
    return Insertion(store_receipts, as_columns(_Row._fields, [*rows]), {"created_at": now})


def void(connection: Any, dialect: Dialect, places: Iterable[tuple[Session, str]]) -> None:
    """Remove those that say nothing any more."""
    rows = [dict(zip(KEY, (*session, short(request)), strict=True)) for session, request in places]
    if rows:
        dialect.delete_many(connection, store_receipts, KEY, rows)


def read(
    reader: Reader, dialect: Dialect, wanted: Collection[tuple[str, str, str]]
) -> Iterator[Receipt]:
    """Give those of (tenant, session id, request id), the ones of earlier releases last."""
    lookups = lookups_of(dialect)
    keys = [(tenant, session_id, short(request)) for tenant, session_id, request in wanted]
    found = [(_Row(*row[:-1]), row[-1]) for row in reader.fetch(lookups.receipts, keys)]
    made = {(*row[:2], row.revision) for row, _ in found if row.memory_id is None}
    ids = {tuple(row[:3]): row[3] for row in reader.fetch(lookups.made, made)}
    for row, created_at in found:
        session = Session(row.tenant, row.session_id)
        yield Receipt(
            session,
            _long(row.request_id),
            _as_digits(row.fingerprint),
            ids.get((*session, row.revision)) if row.memory_id is None else row.memory_id,
            answers.plain(row.revision, row.expires_at) if row.answer is None else row.answer,
            created_at,
        )
    for earlier in reader.fetch(lookups.requests, wanted):
        tenant, session_id, request_id, memory_id, fingerprint, answer, created_at = earlier
        session = Session(tenant, session_id)
        yield Receipt(session, request_id, fingerprint, memory_id, answer, created_at)


def short(request_id: str) -> str:
    """A UUID as the table has it."""
    return urlsafe_b64encode(bytes.fromhex(request_id.replace("-", "")))[:22].decode()


def _long(request_id: str) -> str:
    return str(UUID(bytes=urlsafe_b64decode(request_id + "==")))


def _as_number(fingerprint: str) -> int:
    beginning = bytes.fromhex(fingerprint[:_FINGERPRINT_DIGITS])
    return int.from_bytes(beginning, signed=True)


def _as_digits(number: int) -> str:
    return number.to_bytes(_FINGERPRINT_DIGITS // 2, signed=True).hex()
