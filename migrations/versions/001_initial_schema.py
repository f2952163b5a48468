"""The table of memories, as the first systems in the field had it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from memoryd.migrations.legacy import create_initial_indexes

revision = "001_initial_schema"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "memories",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("content_type", sa.String(50), server_default=sa.text("'context'")),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("importance", sa.Float, server_default=sa.text("0.5")),
        sa.Column("access_count", sa.Integer, server_default=sa.text("0")),
        sa.Column("last_accessed", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.UniqueConstraint(
            "session_id", "content_type", "content", name="uq_memory_session_content"
        ),
    )
    create_initial_indexes()


def downgrade() -> None:
    op.drop_table("memories")
