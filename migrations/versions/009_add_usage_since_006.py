"""What tenants have stored.

Compatibility: older servers do not count; what they change is counted by the next recount.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "009_add_usage_since_006"
down_revision = "008_add_tenant_tools_since_006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant_usage",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("memories", sa.BigInteger(), nullable=False),
        sa.Column("sessions", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("recounts", sa.BigInteger(), nullable=False),
        sa.Column("recount_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_tenant_usage"),
    )
    op.create_index("ix_tenant_usage_recount_at", "tenant_usage", ["recount_at"])


def downgrade() -> None:
    op.drop_table("tenant_usage")
