"""Request ids whose answers are made from the memory, where that is possible.

Compatibility: older servers go on with `store_requests`, which newer ones only read. They do not
find receipts: a store that a newer server has answered, sent again to an older one, is a new store
to it. It merges into the memory that the first one made, and makes a second only where that was
deleted or changed in between. What they purge leaves receipts that name nothing, which newer
servers take for unknown. A downgrade forgets the receipts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "018_add_store_receipts_since_006"
down_revision = "017_add_conversations_since_006"
branch_labels = None
depends_on = None

KEY = ["tenant", "session_id"]

# As of the other tables with a tenant.
NAMED = """
    tenant = nullif(current_setting('memoryd.tenants', true), '')
    OR current_setting('memoryd.tenants', true) = '*'
    OR tenant = ANY (string_to_array(current_setting('memoryd.tenants', true), ','))
"""

IS_ON = "SELECT relrowsecurity FROM pg_class WHERE oid = 'sessions'::regclass"


def upgrade() -> None:
    by_code_point = sa.String(22).with_variant(sa.String(22, collation="C"), "postgresql")
    op.create_table(
        "store_receipts",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("request_id", by_code_point, nullable=False),
        sa.Column("fingerprint", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("memory_id", sa.String(36)),
        sa.Column("answer", sa.JSON()),
        sa.PrimaryKeyConstraint(*KEY, "request_id", name="pk_store_receipts"),
        sa.ForeignKeyConstraint(
            KEY,
            ["sessions.tenant", "sessions.session_id"],
            name="fk_store_receipts_session",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_store_receipts_created_at", "store_receipts", ["created_at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE POLICY memoryd_tenants ON store_receipts USING ({NAMED})")
        if op.get_bind().exec_driver_sql(IS_ON).scalar_one():
            op.execute(
                "ALTER TABLE store_receipts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            )


def downgrade() -> None:
    op.drop_table("store_receipts")
