"""The tools' settings of each tenant, and of the instance.

Compatibility: older servers know nothing of them and keep working; they serve what the tenant
`default` has set, in the tables that they have always had.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "008_add_tenant_tools_since_006"
down_revision = "007_add_access_since_006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tool_config_head",
        sa.Column(
            "instance_revision", sa.BigInteger(), nullable=False, server_default=sa.text("0")
        ),
    )
    op.add_column("tool_config_revisions", sa.Column("instance_overrides", sa.JSON()))
    _add_tenants_tables()
    _add_instance_tables()


def _add_tenants_tables() -> None:
    op.create_table(
        "tenant_tool_heads",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.Column("instance_revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_tenant_tool_heads"),
    )
    op.create_table(
        "tenant_tool_configs",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("tool", sa.String(32), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "tool", name="pk_tenant_tool_configs"),
    )
    op.create_table(
        "tenant_tool_revisions",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        *_changes(),
        sa.Column("before", sa.JSON()),
        sa.Column("after", sa.JSON()),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("instance_overrides", sa.JSON(), nullable=False),
        sa.Column("instance_before", sa.JSON()),
        sa.Column("previous_revision", sa.BigInteger()),
        sa.PrimaryKeyConstraint("tenant", "revision", name="pk_tenant_tool_revisions"),
    )
    op.create_index(
        "ix_tenant_tool_revisions_tool", "tenant_tool_revisions", ["tenant", "tool", "revision"]
    )


def _add_instance_tables() -> None:
    op.create_table(
        "instance_tool_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instance_tool_head"),
        sa.CheckConstraint("id = 1", name="ck_instance_tool_head_single"),
    )
    op.create_table(
        "instance_tool_configs",
        sa.Column("tool", sa.String(32), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tool", name="pk_instance_tool_configs"),
    )
    op.create_table(
        "instance_tool_revisions",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        *_changes(),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("overrides_before", sa.JSON(), nullable=False),
        sa.Column("previous_revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_instance_tool_revisions"),
    )
    op.create_index(
        "ix_instance_tool_revisions_tool", "instance_tool_revisions", ["tool", "revision"]
    )


def _changes() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("tool", sa.String(32), nullable=False),
        sa.Column("change_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    for table in ("revisions", "configs", "head"):
        op.drop_table(f"instance_tool_{table}")
    for table in ("revisions", "configs", "heads"):
        op.drop_table(f"tenant_tool_{table}")
    op.drop_column("tool_config_revisions", "instance_overrides")
    op.drop_column("tool_config_head", "instance_revision")
