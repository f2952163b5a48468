"""Embedding vectors for recall, and a counter that shows which accesses were counted since.

The sweeper's index requires that its column is not null. Without that it matched every query for
live rows, and PostgreSQL, while it assumed that the table was empty, used it to read every live row
for each key.

Compatibility: older servers keep working alongside this one. The accesses that they count do not
raise the counter, so this release may rank by outdated counts while they run.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "006_add_recall"
down_revision = "005_add_tool_configs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _index_updated_at("deleted_at IS NULL AND updated_at IS NOT NULL")
    for table in ("sessions", "memories"):
        op.add_column(
            table,
            sa.Column(
                "access_revision", sa.BigInteger(), nullable=False, server_default=sa.text("0")
            ),
        )
    op.create_table(
        "memory_vectors",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("embedder", sa.String(128), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "id", name="pk_memory_vectors"),
        sa.ForeignKeyConstraint(
            ["tenant", "session_id", "id"],
            ["memories.tenant", "memories.session_id", "memories.id"],
            name="fk_memory_vectors_memory",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    _index_updated_at("deleted_at IS NULL")
    op.drop_table("memory_vectors")
    for table in ("memories", "sessions"):
        op.drop_column(table, "access_revision")


def _index_updated_at(condition: str) -> None:
    op.drop_index("ix_memory_updated_at", table_name="memories")
    op.create_index(
        "ix_memory_updated_at",
        "memories",
        ["updated_at"],
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text(condition),
    )
