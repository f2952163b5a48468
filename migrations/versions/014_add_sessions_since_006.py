"""What a session holds and what a caller has set for it, on its row; indexes to list sessions by.

Compatibility: older servers raise `revision` and leave the new columns alone, so counts and times
hold only where `counted_revision` is `revision`. Sessions of before have none: the sweeper counts
them, and reads do until then.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "014_add_sessions_since_006"
down_revision = "013_add_keys_and_tags_since_006"
branch_labels = None
depends_on = None

EXPIRING = "deleted_at IS NULL AND expires_at IS NOT NULL"
LABELLED = "labels IS NOT NULL"


def upgrade() -> None:
    for column in (
        sa.Column("memory_count", sa.BigInteger()),
        sa.Column("counted_revision", sa.BigInteger()),
        sa.Column("document_count", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.Column("display_name", sa.String(255)),
        sa.Column("labels", sa.JSON()),
        sa.Column("state", sa.JSON()),
        sa.Column("memory_limit", sa.Integer()),
        sa.Column("memory_ttl", sa.BigInteger()),
        sa.Column("memories_never_expire", sa.Boolean()),
        sa.Column("settings_revision", sa.BigInteger()),
    ):
        op.add_column("sessions", column)
    op.create_index(
        "ix_memory_session_expires_at",
        "memories",
        ["tenant", "session_id", "expires_at"],
        sqlite_where=sa.text(EXPIRING),
        postgresql_where=sa.text(EXPIRING),
    )
    # Sessions are listed by code point, which on SQLite is the order of every index.
    if op.get_bind().dialect.name == "postgresql":
        key = ["tenant", sa.text('session_id COLLATE "C"')]
        op.create_index("ix_sessions_by_code_point", "sessions", key)
    else:
        key = ["tenant", "session_id"]
    op.create_index(
        "ix_sessions_labelled",
        "sessions",
        key,
        sqlite_where=sa.text(LABELLED),
        postgresql_where=sa.text(LABELLED),
    )


def downgrade() -> None:
    op.drop_index("ix_sessions_labelled", table_name="sessions")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_sessions_by_code_point", table_name="sessions")
    op.drop_index("ix_memory_session_expires_at", table_name="memories")
    for name in (
        "settings_revision",
        "memories_never_expire",
        "memory_ttl",
        "memory_limit",
        "state",
        "labels",
        "display_name",
        "updated_at",
        "created_at",
        "document_count",
        "counted_revision",
        "memory_count",
    ):
        op.drop_column("sessions", name)
