"""What callers set for a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from memoryd.database.tables import sessions
from memoryd.domain.errors import EtagMismatch, SessionNotFound
from memoryd.domain.quotas import Usage
from memoryd.domain.sessions import etag_of
from memoryd.sessions.accounts import open_accounts, save_accounts
from memoryd.sessions.create import lock_or_create
from memoryd.sessions.lock import SHARD_KEY
from memoryd.sessions.revisions import Totals, notification, row_after

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.quotas import Quotas
    from memoryd.domain.records import Session
    from memoryd.domain.sessions import SessionEdit


def change_settings(
    connection: Connection, dialect: Dialect, edit: SessionEdit, now: datetime, quotas: Quotas
) -> None:
    """Change what is set for a session, as a revision of its own.

    Raises SessionNotFound, EtagMismatch, QuotaExceeded; then nothing may be committed.
    """
    session = edit.session
    needed = {session} if edit.allow_missing else set()
    locked, new = lock_or_create(connection, dialect, [session], needed, now)
    if session not in locked:
        raise SessionNotFound(session.session_id)
    if edit.etag and (
        session in new or edit.etag != etag_of(_settings_revision(connection, session))
    ):
        raise EtagMismatch("the session")
    if session in new:
        _count_new(connection, dialect, session, now, quotas)
    elif not edit.values:
        return
    totals = Totals.after(locked[session], revisions=1)
    row = row_after(session, totals, now)
    row |= {**edit.values, "settings_revision": totals.revision}
    dialect.update_many(connection, sessions, SHARD_KEY, [row], notification=notification(locked))


def _settings_revision(connection: Connection, session: Session) -> int:
    s = sessions.c
    statement = select(s.settings_revision).where(
        s.tenant == session.tenant, s.session_id == session.session_id
    )
    found: int | None = connection.execute(statement).scalar_one()
    return found or 0


def _count_new(
    connection: Connection, dialect: Dialect, session: Session, now: datetime, quotas: Quotas
) -> None:
    """Count a new session in its tenant's account, if that has one. Raises QuotaExceeded."""
    if any(quotas.stored):
        limits = {session.tenant: quotas.stored}
        accounts = open_accounts(connection, dialect, limits, [session], now)
        accounts[session.tenant].add(Usage(0, 1, 0))
        save_accounts(connection, dialect, accounts.values())
