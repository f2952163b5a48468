"""Several sessions of a tenant, found by the beginning of their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.domain.errors import InvalidRequest, Violation
from memoryd.sessions.find import find_sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect
    from memoryd.domain.records import Session
    from memoryd.domain.sessions import TenantRange

MAX_SESSIONS = 1_000
"""Sessions that one call looks into by the beginning of their ids."""


def sessions_in(connection: Connection, dialect: Dialect, whose: TenantRange) -> Sequence[Session]:
    """Find those that there are. Raises InvalidRequest where they are too many."""
    found = find_sessions(connection, dialect, whose.tenant, whose.sessions, MAX_SESSIONS + 1)
    if len(found) > MAX_SESSIONS:
        raise InvalidRequest(
            Violation(
                "session_id_prefix",
                f"fits more than {MAX_SESSIONS:,} sessions; give a longer one",
            )
        )
    return found
