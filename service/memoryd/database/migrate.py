"""Brings a database's schema to this release's; `migrations/` holds the steps.

Alembic is loaded only where there is something to migrate: a server whose schema fits does without.
"""

from __future__ import annotations

import asyncio
import enum
import io
import logging
import re
import threading
from importlib.resources import files
from typing import TYPE_CHECKING

from memoryd.domain.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.config import Config

REVISIONS = (
    "001_initial_schema",
    "002_add_content_hashing",
    "003_add_tenants_and_revisions",
    "004_add_history",
    "005_add_tool_configs",
    "006_add_recall",
    "007_add_access_since_006",
    "008_add_tenant_tools_since_006",
    "009_add_usage_since_006",
    "010_add_session_floors_since_006",
    "011_add_audit_since_006",
    "012_add_row_security_since_006",
    "013_add_keys_and_tags_since_006",
    "014_add_sessions_since_006",
    "015_add_documents_since_006",
    "016_add_eviction_ranks_since_006",
    "017_add_conversations_since_006",
    "018_add_store_receipts_since_006",
)
"""Oldest first.

A migration that only adds what an earlier release leaves alone ends its name with the number of the
oldest revision that it suits: servers of `006_…` go on serving on `007_add_access_since_006`.
"""

HEAD = REVISIONS[-1]

SHORT_NAMES = {"001": REVISIONS[0], "002": REVISIONS[1]}
"""What the revisions may be called in a database that an earlier system left."""


_SUITS_EARLIER = re.compile(r"(?P<number>[0-9]{3})_\w+_since_(?P<oldest>[0-9]{3})")

# What Alembic works on is global to the process.
_alembic = threading.Lock()


class SchemaState(enum.Enum):
    """How a database's schema relates to the one that this release needs."""

    CURRENT = enum.auto()
    """It will do: this release's own, or a later one that suits it too."""
    BEHIND = enum.auto()
    AHEAD = enum.auto()
    NOT_UTF8 = enum.auto()
    """There is no schema for it: the database's encoding cannot hold what callers store."""
    ON_WORKER = enum.auto()
    """The tables are spread over machines, and this one is not where they are used."""


def schema_state(versions: Iterable[str]) -> SchemaState:
    """Check what the table `alembic_version` holds; an absent table counts as an empty one."""
    known = {SHORT_NAMES.get(version, version) for version in versions}
    if known <= set(REVISIONS):
        return SchemaState.CURRENT if HEAD in known else SchemaState.BEHIND
    return SchemaState.CURRENT if any(map(_suits, known)) else SchemaState.AHEAD


def has_fewer(version: str) -> bool:
    """Whether rows of a schema lack, at the most, columns and tables that have come since."""
    head = _SUITS_EARLIER.fullmatch(HEAD)
    return version in REVISIONS and head is not None and version[:3] >= head["oldest"]


def _suits(later: str) -> bool:
    named = _SUITS_EARLIER.fullmatch(later)
    return named is not None and named["oldest"] <= HEAD[:3] < named["number"]


async def migrate(database_url: str, *, target: str = "head") -> None:
    """Upgrade the database to `target`; do nothing where it is there already.

    Only one migration of a database runs at a time; others wait for it. What fails leaves the
    schema at a revision, never between two.

    Raises SchemaMismatch where this release does not know the database's revision or `target`, and
    the driver's errors where the database does not answer.
    """
    # In a thread: Alembic blocks, and runs an event loop of its own for the driver.
    await asyncio.to_thread(_upgrade, database_url, target)


def _upgrade(database_url: str, target: str) -> None:
    from alembic import command  # noqa: PLC0415 - as the module says
    from alembic.util import CommandError  # noqa: PLC0415 - likewise

    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with _alembic:
            command.upgrade(alembic_config(database_url), target)
    except CommandError as error:
        raise SchemaMismatch(f"{error}; this release knows the schema up to {HEAD}") from error


def alembic_config(database_url: str) -> Config:
    """Make what Alembic's own commands need to work on the database, in silence."""
    from alembic.config import Config  # noqa: PLC0415 - as the module says

    config = Config(stdout=io.StringIO(), attributes={"database_url": database_url})
    folder = str(files("memoryd.migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config
