"""References to sessions that do not tell their ids: HMAC-SHA-256 under a random key a tenant.

For what stays when a session is erased: its floor of revisions, and lines of the audit.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import select

from memoryd.database.dialect import columns_of
from memoryd.database.tables import session_ref_keys

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from memoryd.database.dialect import Dialect

KEY_BYTES = 32


def session_ref(key: bytes, session_id: str) -> str:
    """Refer to a session, in 64 hex digits: only with the tenant's key can its id be told."""
    return hmac.new(key, session_id.encode(), hashlib.sha256).hexdigest()


def ensure_key(connection: Connection, dialect: Dialect, tenant: str) -> bytes:
    """Give the key of a tenant's references; make it where there is none."""
    found = read_key(connection, tenant)
    if found is None:
        row = {"tenant": tenant, "key": secrets.token_hex(KEY_BYTES)}
        dialect.insert_many(connection, session_ref_keys, columns_of([row]), ignore_existing=True)
        found = read_key(connection, tenant)
    if found is None:
        raise LookupError("a key was inserted and is not there")
    return found


def read_key(connection: Connection, tenant: str) -> bytes | None:
    wanted = select(session_ref_keys.c.key).where(session_ref_keys.c.tenant == tenant)
    found: str | None = connection.execute(wanted).scalar_one_or_none()
    return None if found is None else bytes.fromhex(found)
