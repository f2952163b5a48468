"""The tools' runtime overrides and their revisions; no session data.

Compatibility: older servers keep working alongside this one. They ignore overrides and serve the
environment and the defaults.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "005_add_tool_configs"
down_revision = "004_add_history"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tool_config_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tool_config_head"),
        sa.CheckConstraint("id = 1", name="ck_tool_config_head_single"),
    )
    op.create_table(
        "tool_configs",
        sa.Column("tool", sa.String(32), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tool", name="pk_tool_configs"),
    )
    op.create_table(
        "tool_config_revisions",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tool", sa.String(32), nullable=False),
        sa.Column("change_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_tool_config_revisions"),
    )
    op.create_index("ix_tool_config_revisions_tool", "tool_config_revisions", ["tool", "revision"])


def downgrade() -> None:
    op.drop_table("tool_config_revisions")
    op.drop_table("tool_configs")
    op.drop_table("tool_config_head")
