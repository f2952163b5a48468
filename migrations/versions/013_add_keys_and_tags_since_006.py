"""Keys and tags of memories.

Compatibility: older servers insert memories without either, and keep those of the rows that they
change, since they name neither column. They purge and erase tags with their memories, by the
reference. A memory with a key has a `content_hash` that is no content's, so that they merge nothing
with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "013_add_keys_and_tags_since_006"
down_revision = "012_add_row_security_since_006"
branch_labels = None
depends_on = None

NAMED = """
    tenant = nullif(current_setting('memoryd.tenants', true), '')
    OR current_setting('memoryd.tenants', true) = '*'
    OR tenant = ANY (string_to_array(current_setting('memoryd.tenants', true), ','))
"""

LIVE_WITH_KEY = sa.text("deleted_at IS NULL AND key IS NOT NULL")


def by_code_point(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("memories", sa.Column("key", by_code_point(255)))
    op.add_column(
        "memories", sa.Column("tags", sa.JSON(), nullable=False, server_default=sa.text("'[]'"))
    )
    # Of rows that have a key alone, so that storing others costs no entry.
    op.create_index(
        "uq_memory_live_key",
        "memories",
        ["tenant", "session_id", "key"],
        unique=True,
        sqlite_where=LIVE_WITH_KEY,
        postgresql_where=LIVE_WITH_KEY,
    )
    op.create_table(
        "memory_tags",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("tag", by_code_point(64), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "tag", "id", name="pk_memory_tags"),
        sa.ForeignKeyConstraint(
            ["tenant", "session_id", "id"],
            ["memories.tenant", "memories.session_id", "memories.id"],
            name="fk_memory_tags_memory",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_memory_tags_id", "memory_tags", ["tenant", "session_id", "id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE POLICY memoryd_tenants ON memory_tags USING ({NAMED})")
        if _protects("memories"):
            op.execute(
                "ALTER TABLE memory_tags ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            )


def _protects(table: str) -> bool:
    """Whether row-level security is on for a table that older servers use too."""
    statement = sa.text("SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(:table)")
    return bool(op.get_bind().execute(statement, {"table": table}).scalar())


def downgrade() -> None:
    op.drop_table("memory_tags")
    op.drop_index("uq_memory_live_key", table_name="memories")
    op.drop_column("memories", "tags")
    op.drop_column("memories", "key")
