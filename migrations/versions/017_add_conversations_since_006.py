"""Conversations of sessions, and how many of them and of their messages a tenant has.

Compatibility: older servers leave them alone. They take the revisions that conversations have used
for gaps, and erasing a session removes its conversations by the foreign key. Their recounts of a
tenant's usage leave conversations out, until the next recount by a server that knows them.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

from memoryd.database.dialect import Distribution
from memoryd.database.spreading import distribution

revision = "017_add_conversations_since_006"
down_revision = "016_add_eviction_ranks_since_006"
branch_labels = None
depends_on = None

TABLES = (
    *("conversations", "conversation_branches", "messages"),
    *("conversation_history", "conversation_requests"),
)

# As of the other tables with a tenant.
NAMED = """
    tenant = nullif(current_setting('memoryd.tenants', true), '')
    OR current_setting('memoryd.tenants', true) = '*'
    OR tenant = ANY (string_to_array(current_setting('memoryd.tenants', true), ','))
"""

IS_ON = "SELECT relrowsecurity FROM pg_class WHERE oid = 'sessions'::regclass"

KEY = ["tenant", "session_id"]


def words(name: str, length: int = 255, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def structure(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False)


def create(table: str, key: list[str], *columns: sa.Column[Any]) -> None:
    op.create_table(
        table,
        words("tenant", 64),
        words("session_id"),
        *columns,
        sa.PrimaryKeyConstraint(*KEY, *key, name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            KEY,
            ["sessions.tenant", "sessions.session_id"],
            name=f"fk_{table}_session",
            ondelete="CASCADE",
        ),
    )


def upgrade() -> None:
    create(
        "conversations",
        ["conversation_id"],
        words("conversation_id"),
        number("number"),
        number("tree"),
        number("revision"),
        words("change", 16),
        moment("created_at"),
        moment("updated_at"),
        moment("expires_at", nullable=True),
        number("ttl_microseconds", nullable=True),
        number("head_branch"),
        number("head_depth"),
        number("head_first_depth"),
        words("head_message_id"),
        number("head_tokens"),
        words("head_turn_id"),
        number("head_turn_depth"),
        moment("head_created_at", nullable=True),
        flag("head_is_end"),
        flag("head_is_tip"),
        structure("tips"),
        structure("promoted"),
        words("forked_from", nullable=True),
        words("forked_at"),
        words("display_name"),
        structure("labels"),
        structure("state"),
        words("summary_through", nullable=True),
        number("summary_tokens", nullable=True),
        moment("summary_updated_at", nullable=True),
        sa.Column("summary", sa.Text()),
    )
    op.create_index("uq_conversation_revision", "conversations", [*KEY, "revision"], unique=True)
    op.create_index("ix_conversation_tree", "conversations", [*KEY, "tree"])
    op.create_index(
        "ix_conversation_updated_at",
        "conversations",
        ["tenant", "updated_at", "session_id", "revision"],
        postgresql_where=sa.text("updated_at IS NOT NULL"),
    )
    has_expiry = sa.text("expires_at IS NOT NULL")
    for name, columns in (
        ("ix_conversation_expires_at", ["expires_at"]),
        ("ix_conversation_session_expires_at", [*KEY, "expires_at"]),
    ):
        op.create_index(
            name,
            "conversations",
            columns,
            sqlite_where=has_expiry,
            postgresql_where=has_expiry,
        )
    create(
        "conversation_branches",
        ["branch"],
        number("branch"),
        number("tree"),
        number("owner"),
        number("parent"),
        number("first_depth"),
        number("tokens_before"),
    )
    op.create_index("ix_conversation_branch_tree", "conversation_branches", [*KEY, "tree"])
    create(
        "messages",
        ["branch", "depth"],
        number("branch"),
        number("depth"),
        number("tree"),
        words("message_id"),
        words("parent_id"),
        number("revision"),
        moment("created_at"),
        number("tokens"),
        flag("is_estimated"),
        number("tokens_through"),
        words("turn_id"),
        number("turn_depth"),
        number("size"),
        words("sha256", 64),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_message_revision", "messages", [*KEY, "revision"])
    op.create_index("ix_message_id", "messages", [*KEY, "tree", "message_id"])
    op.create_index("ix_message_tokens", "messages", [*KEY, "branch", "tokens_through", "depth"])
    create(
        "conversation_history",
        ["revision"],
        number("revision"),
        words("conversation_id"),
        words("change", 16),
        moment("recorded_at"),
    )
    op.create_index("ix_conversation_history_recorded_at", "conversation_history", ["recorded_at"])
    create(
        "conversation_requests",
        ["request_id"],
        words("request_id", 36),
        words("conversation_id"),
        words("fingerprint", 64),
        structure("answer"),
        sa.Column("bodies", sa.LargeBinary()),
        moment("created_at"),
    )
    op.create_index("ix_conversation_requests_created_at", "conversation_requests", ["created_at"])
    op.create_index(
        "ix_conversation_requests_conversation",
        "conversation_requests",
        [*KEY, "conversation_id"],
    )
    for table, name in COUNTS:
        op.add_column(
            table, sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
    if op.get_bind().dialect.name == "postgresql":
        is_on = op.get_bind().exec_driver_sql(IS_ON).scalar_one()
        for table in TABLES:
            op.execute(f"CREATE POLICY memoryd_tenants ON {table} USING ({NAMED})")
            if is_on:
                op.execute(
                    f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
                )


COUNTS = (
    ("sessions", "conversation_horizon"),
    ("sessions", "conversation_count"),
    ("tenant_usage", "conversations"),
    ("tenant_usage", "messages"),
)


def downgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name == "postgresql" and distribution(bind) is not Distribution.NONE:
        raise CommandError(
            f"sessions are spread over Citus's workers, and no schema before {revision} can be:"
            " stop the servers and run `memoryd migrate --undistribute` first"
        )
    for table, name in reversed(COUNTS):
        op.drop_column(table, name)
    for table in reversed(TABLES):
        op.drop_table(table)
