"""Tenants, session revisions, uniqueness among live memories, keys that start with the shard key.

Compatibility: older servers cannot write alongside this one, since they know neither tenants nor
revisions; stop them first. Etags and revisions from before a downgrade are invalid after it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

from memoryd.domain.ids import uuid7
from memoryd.migrations.legacy import (
    BATCH,
    create_active_indexes,
    create_initial_indexes,
    drop_keys_and_indexes,
    in_batches,
    is_object,
    log_count,
    memories,
    merge_duplicates,
    metadata_text,
    read_metadata,
    repair_numbers,
    repair_times,
    update_each,
    write_hashes,
)
from memoryd.progress import progress

if TYPE_CHECKING:
    from alembic.operations import BatchOperations

revision = "003_add_tenants_and_revisions"
down_revision = "002_add_content_hashing"
branch_labels = None
depends_on = None

TENANT = "default"
CONTENT_TYPES = ("user_info", "preference", "fact", "context")
FALLBACK_TYPE = "context"
SESSION_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:@-]{0,254}")
MEMORY_ID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
OLD_PRIMARY_KEY = "memories_pkey"  # as PostgreSQL names it
SHARD_KEY = ("tenant", "session_id")
# Columns that earlier systems left nullable, with the database's default from now on, if any.
STRICT_COLUMNS = (
    ("content_type", sa.String(50), "'context'"),
    ("metadata", sa.JSON(), "'{}'"),
    ("importance", sa.Float(), "0.5"),
    ("access_count", sa.Integer(), "0"),
)

c = memories.c


def upgrade() -> None:
    connection = op.get_bind()
    drop_keys_and_indexes()
    op.add_column(
        "memories",
        sa.Column("tenant", sa.String(64), nullable=False, server_default=sa.text(f"'{TENANT}'")),
    )
    op.add_column("memories", sa.Column("revision", sa.BigInteger))
    op.add_column("memories", sa.Column("created_revision", sa.BigInteger))
    op.add_column(
        "memories",
        sa.Column("change", sa.String(16), nullable=False, server_default=sa.text("'created'")),
    )

    repair_times(connection)
    repair_numbers(connection)
    repair_content_types(connection)
    repair_metadata(connection)
    log_count(write_hashes(connection), "hashes of %s memories were missing or wrong: computed")
    merge_duplicates(connection)
    number_revisions(connection)
    replace_ids(connection)

    create_sessions(connection)
    tighten(connection)
    create_store_requests()


def repair_content_types(connection: sa.Connection) -> None:
    plain = sa.func.lower(sa.func.trim(c.content_type))
    connection.execute(
        sa.update(memories)
        .where(plain.in_(CONTENT_TYPES), c.content_type != plain)
        .values(content_type=plain)
    )
    unknown = connection.execute(
        sa.update(memories)
        .where(sa.or_(c.content_type.is_(None), c.content_type.not_in(CONTENT_TYPES)))
        .values(content_type=FALLBACK_TYPE)
    )
    log_count(
        unknown.rowcount, f"content type of %s memories was missing or unknown: now {FALLBACK_TYPE}"
    )


def repair_metadata(connection: sa.Connection) -> None:
    odd = 0
    for rows in in_batches(connection, "reading metadata", metadata_text()):
        repaired = []
        for row in rows:
            if not is_object(row.metadata):
                metadata = read_metadata(row.metadata)
                odd += bool(metadata)
                repaired.append({"id": row.id, "metadata": metadata})
        update_each(connection, repaired)
    log_count(odd, "metadata of %s memories was no JSON object: made one, under the key value")


def number_revisions(connection: sa.Connection) -> None:
    """Number each session's memories with the revisions of storing them one by one."""
    order = sa.func.row_number().over(partition_by=c.session_id, order_by=(c.created_at, c.id))
    numbered = sa.select(c.id, order.label("number")).subquery()
    connection.execute(
        sa.update(memories)
        .where(c.id == numbered.c.id)
        .values(
            revision=numbered.c.number,
            created_revision=numbered.c.number,
            change=sa.case((c.deleted_at.is_not(None), "deleted"), else_="created"),
        )
    )


def replace_ids(connection: sa.Connection) -> None:
    """Give memories without a valid id a new one."""
    rows = connection.execute(
        sa.select(c.id, c.created_at)
        .where(sa.not_(c.id.regexp_match(MEMORY_ID)))
        .order_by(c.created_at, c.id)
    ).all()
    if not rows:
        return
    statement = (
        sa.update(memories).where(c.id == sa.bindparam("old")).values(id=sa.bindparam("new"))
    )
    with progress("replacing ids", len(rows)) as advance:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            connection.execute(
                statement, [{"old": row.id, "new": uuid7(row.created_at)} for row in batch]
            )
            advance(len(batch))
    log_count(len(rows), "id of %s memories was no UUID in lower case: given a new one")


def create_sessions(connection: sa.Connection) -> None:
    op.create_table(
        "sessions",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(*SHARD_KEY, name="pk_sessions"),
    )
    sessions = sa.table("sessions", *map(sa.column, (*SHARD_KEY, "revision")))
    key = c.tenant, c.session_id
    latest = sa.select(*key, sa.func.max(c.revision)).group_by(*key)
    connection.execute(sa.insert(sessions).from_select([*SHARD_KEY, "revision"], latest))
    refused = sum(
        SESSION_ID.fullmatch(session_id) is None
        for session_id in connection.scalars(sa.select(sessions.c.session_id))
    )
    log_count(refused, "%s sessions have a name that the service refuses: kept, out of its reach")


def tighten(connection: sa.Connection) -> None:
    # SQLite's primary key has a name only if it was given one.
    named = {"pk": OLD_PRIMARY_KEY}
    with op.batch_alter_table("memories", naming_convention=named) as table:
        for name, type_, default in STRICT_COLUMNS:
            table.alter_column(
                name, existing_type=type_, nullable=False, server_default=sa.text(default)
            )
        for name in ("created_at", "updated_at"):
            table.alter_column(
                name, existing_type=sa.DateTime(timezone=True), nullable=False, server_default=None
            )
        table.alter_column("semantic_hash", existing_type=sa.String(64), nullable=False)
        table.alter_column("revision", existing_type=sa.BigInteger(), nullable=False)
        table.alter_column("created_revision", existing_type=sa.BigInteger(), nullable=False)
        replace_primary_key(connection, table, "pk_memories", [*SHARD_KEY, "id"])
        table.create_foreign_key(
            "fk_memories_session", "sessions", [*SHARD_KEY], [*SHARD_KEY], ondelete="CASCADE"
        )
    live = sa.text("deleted_at IS NULL")
    op.create_index(
        "uq_memory_live_content",
        "memories",
        [*SHARD_KEY, "content_type", "content_hash"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_index("uq_memory_revision", "memories", [*SHARD_KEY, "revision"], unique=True)
    op.create_index(
        "uq_memory_created_revision", "memories", [*SHARD_KEY, "created_revision"], unique=True
    )


def replace_primary_key(
    connection: sa.Connection, table: BatchOperations, name: str, columns: list[str]
) -> None:
    present = sa.inspect(connection).get_pk_constraint("memories")["name"]
    table.drop_constraint(present or OLD_PRIMARY_KEY, type_="primary")
    table.create_primary_key(name, columns)


def create_store_requests() -> None:
    op.create_table(
        "store_requests",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("memory_id", sa.String(36), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(*SHARD_KEY, "request_id", name="pk_store_requests"),
        sa.ForeignKeyConstraint(
            [*SHARD_KEY],
            ["sessions.tenant", "sessions.session_id"],
            name="fk_store_requests_session",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    connection = op.get_bind()
    others = connection.scalar(
        sa.select(sa.func.count()).select_from(memories).where(c.tenant != TENANT)
    )
    if others:
        raise CommandError(
            f"{others:,} memories belong to tenants other than {TENANT!r}, whom {down_revision}"
            " cannot tell apart: export and erase them first"
        )
    remove_surplus_tombstones(connection)

    op.drop_table("store_requests")
    drop_keys_and_indexes()
    with op.batch_alter_table("memories") as table:
        table.drop_constraint("fk_memories_session", type_="foreignkey")
        replace_primary_key(connection, table, OLD_PRIMARY_KEY, ["id"])
        for name in ("tenant", "revision", "created_revision", "change"):
            table.drop_column(name)
        table.alter_column("content_type", existing_type=sa.String(50), nullable=True)
        table.alter_column("metadata", existing_type=sa.JSON(), nullable=True, server_default=None)
        table.alter_column("importance", existing_type=sa.Float(), nullable=True)
        table.alter_column("access_count", existing_type=sa.Integer(), nullable=True)
        for name in ("created_at", "updated_at"):
            table.alter_column(
                name,
                existing_type=sa.DateTime(timezone=True),
                server_default=sa.text("CURRENT_TIMESTAMP"),
            )
        table.alter_column("semantic_hash", existing_type=sa.String(64), nullable=True)
        table.create_unique_constraint(
            "uq_memory_session_content_hash", ["session_id", "content_type", "content_hash"]
        )
    op.drop_table("sessions")
    create_initial_indexes()
    create_active_indexes()


def remove_surplus_tombstones(connection: sa.Connection) -> None:
    """Keep the live or newest memory of each content, since the old key includes deleted ones."""
    rank = (
        sa.func.row_number()
        .over(
            partition_by=(c.session_id, c.content_type, c.content_hash),
            order_by=(sa.case((c.deleted_at.is_(None), 0), else_=1), c.revision.desc()),
        )
        .label("rank")
    )
    ranked = sa.select(c.id, rank).subquery()
    removed = connection.execute(
        sa.delete(memories).where(c.id.in_(sa.select(ranked.c.id).where(ranked.c.rank > 1)))
    )
    log_count(
        removed.rowcount, "%s deleted memories were removed for good: their content is there again"
    )
