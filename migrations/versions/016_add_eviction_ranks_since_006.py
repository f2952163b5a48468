"""Ranks for eviction from large sessions, so that it reads a few rows and no whole session.

Compatibility: older servers leave the columns alone. What they change has a revision beyond the
session's `ranked_revision`, and is ranked by the next store of a newer server.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "016_add_eviction_ranks_since_006"
down_revision = "012_add_row_security_since_006"
branch_labels = None
depends_on = None

RANKED = "deleted_at IS NULL AND eviction_rank IS NOT NULL"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("ranked_revision", sa.BigInteger()))
    op.add_column("sessions", sa.Column("ranked_half_life", sa.Float()))
    op.add_column("memories", sa.Column("eviction_level", sa.SmallInteger()))
    op.add_column("memories", sa.Column("eviction_rank", sa.BigInteger()))
    _index("ix_memory_eviction", ["eviction_level", "eviction_rank", "revision"], RANKED)
    _index("ix_memory_ranked_expiry", ["expires_at"], f"{RANKED} AND expires_at IS NOT NULL")


def downgrade() -> None:
    for index in ("ix_memory_ranked_expiry", "ix_memory_eviction"):
        op.drop_index(index, table_name="memories")
    for table, column in (
        ("memories", "eviction_rank"),
        ("memories", "eviction_level"),
        ("sessions", "ranked_half_life"),
        ("sessions", "ranked_revision"),
    ):
        op.drop_column(table, column)


def _index(name: str, columns: list[str], condition: str) -> None:
    op.create_index(
        name,
        "memories",
        ["tenant", "session_id", *columns],
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )
