"""Ranks for eviction from large sessions, so that it reads a few rows and no whole session.

Compatibility: older servers leave the columns alone. What they change has a revision beyond the
session's `ranked_revision`, and is ranked by the next store of a newer server.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "016_add_eviction_ranks_since_006"
down_revision = "015_add_documents_since_006"
branch_labels = None
depends_on = None

RANKED = "deleted_at IS NULL AND eviction_rank IS NOT NULL"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("ranked_revision", sa.BigInteger()))
    op.add_column("sessions", sa.Column("ranked_half_life", sa.Float()))
    op.add_column("memories", sa.Column("eviction_level", sa.SmallInteger()))
    op.add_column("memories", sa.Column("eviction_rank", sa.BigInteger()))
    op.create_index(
        "ix_memory_eviction",
        "memories",
        ["tenant", "session_id", "eviction_level", "eviction_rank", "revision"],
        sqlite_where=sa.text(RANKED),
        postgresql_where=sa.text(RANKED),
    )


def downgrade() -> None:
    op.drop_index("ix_memory_eviction", table_name="memories")
    for table, column in (
        ("memories", "eviction_rank"),
        ("memories", "eviction_level"),
        ("sessions", "ranked_half_life"),
        ("sessions", "ranked_revision"),
    ):
        op.drop_column(table, column)
