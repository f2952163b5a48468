"""Floors of revisions for each erased session, by a reference that does not tell its id.

Compatibility: older servers know nothing of them and keep working; what they erase raises the floor
of the whole tenant, as it did before. A session that a newer server has erased begins at 0 where an
older one makes it again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "010_add_session_floors_since_006"
down_revision = "009_add_usage_since_006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "session_ref_keys",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_session_ref_keys"),
    )
    op.create_table(
        "session_floors",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_ref", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_ref", name="pk_session_floors"),
    )


def downgrade() -> None:
    op.drop_table("session_floors")
    op.drop_table("session_ref_keys")
