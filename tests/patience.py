"""Limits for tests that do not judge them: a machine that does much else may take seconds."""

from __future__ import annotations

PATIENT = {
    "MEMORYD_DATABASE_TIMEOUT_SECONDS": "60",
    "MEMORYD_DATABASE_STATEMENT_TIMEOUT_SECONDS": "60",
    "MEMORYD_DATABASE_LOCK_TIMEOUT_SECONDS": "60",
}
