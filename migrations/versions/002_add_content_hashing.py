"""Content hashes, which identify duplicates from now on; expiry and soft deletion.

Compatibility: older servers cannot write alongside this one, since they set no content hash; stop
them first. Memories with the same normalised content are merged by the contract's rule.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from memoryd.migrations.legacy import (
    create_active_indexes,
    create_initial_indexes,
    drop_keys_and_indexes,
    log_count,
    memories,
    merge_duplicates,
    repair_numbers,
    repair_times,
    write_hashes,
)

revision = "002_add_content_hashing"
down_revision = "001_initial_schema"
branch_labels = None
depends_on = None

# PostgreSQL's B-tree accepts entries of at most 2,704 bytes, including its own overhead.
LONGEST_KEY_BYTES = 2_600


def upgrade() -> None:
    connection = op.get_bind()
    drop_keys_and_indexes()
    op.add_column("memories", sa.Column("content_hash", sa.String(64)))
    op.add_column("memories", sa.Column("semantic_hash", sa.String(64)))
    op.add_column("memories", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("memories", sa.Column("deleted_at", sa.DateTime(timezone=True)))

    repair_times(connection)
    repair_numbers(connection)
    write_hashes(connection)
    merge_duplicates(connection)

    with op.batch_alter_table("memories") as table:
        table.alter_column("content_hash", existing_type=sa.String(64), nullable=False)
        table.create_unique_constraint(
            "uq_memory_session_content_hash", ["session_id", "content_type", "content_hash"]
        )
        table.create_check_constraint(
            "ck_memory_importance_range", "importance >= 0.0 AND importance <= 1.0"
        )
        table.create_check_constraint("ck_memory_access_count_positive", "access_count >= 0")
    create_initial_indexes()
    create_active_indexes()


def downgrade() -> None:
    connection = op.get_bind()
    # The older schema cannot mark them as deleted, so they would come back.
    gone = sa.or_(memories.c.deleted_at.is_not(None), memories.c.expires_at <= datetime.now(UTC))
    removed = connection.execute(sa.delete(memories).where(gone))
    log_count(removed.rowcount, "%s deleted or expired memories were removed for good")

    drop_keys_and_indexes()
    with op.batch_alter_table("memories") as table:
        table.drop_constraint("ck_memory_importance_range", type_="check")
        table.drop_constraint("ck_memory_access_count_positive", type_="check")
        for column in ("content_hash", "semantic_hash", "expires_at", "deleted_at"):
            table.drop_column(column)
    _create_content_key(connection)
    create_initial_indexes()


def _create_content_key(connection: sa.Connection) -> None:
    name, columns = "uq_memory_session_content", ("session_id", "content_type", "content")
    if connection.dialect.name == "postgresql":
        size = sum(sa.func.octet_length(memories.c[column]) for column in columns)
        if (connection.scalar(sa.select(sa.func.max(size))) or 0) > LONGEST_KEY_BYTES:
            # As unique as the column itself, small enough, and immutable, as an index requires.
            digest = sa.text("md5(content)")
            op.create_index(name, "memories", [*columns[:2], digest], unique=True)
            return
    with op.batch_alter_table("memories") as table:
        table.create_unique_constraint(name, list(columns))
