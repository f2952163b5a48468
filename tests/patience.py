"""Generous limits for tests that do not check them, since a busy machine may take seconds."""

from __future__ import annotations

from memoryd.database.options import DatabaseOptions

PATIENT = {
    "MEMORYD_DATABASE_TIMEOUT_SECONDS": "60",
    "MEMORYD_DATABASE_STATEMENT_TIMEOUT_SECONDS": "60",
    "MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS": "60",
    "MEMORYD_REQUEST_SECONDS": "60",
}

PATIENT_DATABASE = DatabaseOptions(
    timeout_seconds=60.0, statement_timeout_seconds=60.0, lock_timeout_seconds=60.0
)
