"""Superseded versions and purges for watchers of a session, and the sweeper's indexes.

Compatibility: older servers keep working alongside this one. Their changes have no history, so
watchers of a session see only its latest state.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "004_add_history"
down_revision = "003_add_tenants_and_revisions"
branch_labels = None
depends_on = None

PARTIAL_INDEXES = (
    ("ix_memory_expires_at", "expires_at", "deleted_at IS NULL AND expires_at IS NOT NULL"),
    ("ix_memory_updated_at", "updated_at", "deleted_at IS NULL"),
    ("ix_memory_deleted_at", "deleted_at", "deleted_at IS NOT NULL"),
)


def upgrade() -> None:
    op.add_column(
        "sessions",
        sa.Column("horizon", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "memory_history",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        sa.Column("state", sa.JSON()),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "revision", name="pk_memory_history"),
        sa.ForeignKeyConstraint(
            ["tenant", "session_id"],
            ["sessions.tenant", "sessions.session_id"],
            name="fk_memory_history_session",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_memory_history_id", "memory_history", ["tenant", "session_id", "id"])
    op.create_index("ix_memory_history_recorded_at", "memory_history", ["recorded_at"])
    op.create_index("ix_store_requests_created_at", "store_requests", ["created_at"])
    op.create_table(
        "revision_floors",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_revision_floors"),
    )
    for name, column, condition in PARTIAL_INDEXES:
        op.create_index(
            name,
            "memories",
            [column],
            sqlite_where=sa.text(condition),
            postgresql_where=sa.text(condition),
        )


def downgrade() -> None:
    for name, _, _ in PARTIAL_INDEXES:
        op.drop_index(name, "memories")
    op.drop_table("revision_floors")
    op.drop_index("ix_store_requests_created_at", "store_requests")
    op.drop_table("memory_history")
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("horizon")
