"""The audit: its lines, the end of their chain, and the keys of session references.

Compatibility: older servers know nothing of it and keep working; they write no line.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "010_add_audit_since_006"
down_revision = "009_add_usage_since_006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("dropped_seq", sa.BigInteger(), nullable=False),
        sa.Column("dropped_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
        sa.CheckConstraint("id = 1", name="ck_audit_head_single"),
    )
    op.create_table(
        "audit_events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_tenant", "audit_events", ["tenant", "seq"])
    op.create_index("ix_audit_events_time", "audit_events", ["time"])
    op.create_table(
        "audit_keys",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_audit_keys"),
    )


def downgrade() -> None:
    op.drop_table("audit_keys")
    op.drop_table("audit_events")
    op.drop_table("audit_head")
