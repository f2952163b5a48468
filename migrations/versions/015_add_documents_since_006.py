"""Documents of sessions, and how many a tenant has.

Compatibility: older servers leave them alone. They take the revisions that documents have used for
gaps, and erasing a session removes its documents by the foreign key. Their recounts of a tenant's
usage leave documents out, until the next recount by a server that knows them.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "015_add_documents_since_006"
down_revision = "014_add_sessions_since_006"
branch_labels = None
depends_on = None

TABLES = ("documents", "document_history", "document_requests")

# As of the other tables with a tenant.
NAMED = """
    tenant = nullif(current_setting('memoryd.tenants', true), '')
    OR current_setting('memoryd.tenants', true) = '*'
    OR tenant = ANY (string_to_array(current_setting('memoryd.tenants', true), ','))
"""

IS_ON = "SELECT relrowsecurity FROM pg_class WHERE oid = 'sessions'::regclass"


def code_points() -> Any:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def moment(name: str, *, nullable: bool) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def key() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(255), nullable=False),
    )


def session_of(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name=f"fk_{table}_session",
        ondelete="CASCADE",
    )


def upgrade() -> None:
    op.create_table(
        "documents",
        *key(),
        sa.Column("namespace", code_points(), nullable=False),
        sa.Column("key", code_points(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        moment("created_at", nullable=False),
        moment("updated_at", nullable=False),
        moment("expires_at", nullable=True),
        sa.Column("ttl_microseconds", sa.BigInteger()),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("search_texts", sa.JSON()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "namespace", "key", name="pk_documents"),
        session_of("documents"),
    )
    op.create_index(
        "uq_document_revision", "documents", ["tenant", "session_id", "revision"], unique=True
    )
    op.create_index(
        "ix_document_updated_at", "documents", ["tenant", "session_id", "updated_at", "revision"]
    )
    has_texts = sa.text("search_texts IS NOT NULL")
    op.create_index(
        "ix_document_searchable",
        "documents",
        ["tenant", "session_id", "revision"],
        sqlite_where=has_texts,
        postgresql_where=has_texts,
    )
    has_expiry = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "ix_document_expires_at",
        "documents",
        ["expires_at"],
        sqlite_where=has_expiry,
        postgresql_where=has_expiry,
    )
    op.create_index(
        "ix_document_session_expires_at",
        "documents",
        ["tenant", "session_id", "expires_at"],
        sqlite_where=has_expiry,
        postgresql_where=has_expiry,
    )
    op.create_table(
        "document_history",
        *key(),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("namespace", code_points(), nullable=False),
        sa.Column("key", code_points(), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        moment("recorded_at", nullable=False),
        moment("created_at", nullable=True),
        moment("updated_at", nullable=True),
        moment("expires_at", nullable=True),
        sa.Column("ttl_microseconds", sa.BigInteger()),
        sa.Column("kind", sa.String(8)),
        sa.Column("size", sa.BigInteger()),
        sa.Column("sha256", sa.String(64)),
        sa.Column("labels", sa.JSON()),
        sa.Column("body", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("tenant", "session_id", "revision", name="pk_document_history"),
        session_of("document_history"),
    )
    op.create_index(
        "ix_document_history_name",
        "document_history",
        ["tenant", "session_id", "namespace", "key", "revision"],
    )
    op.create_index("ix_document_history_recorded_at", "document_history", ["recorded_at"])
    op.create_table(
        "document_requests",
        *key(),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        moment("created_at", nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "request_id", name="pk_document_requests"),
        session_of("document_requests"),
    )
    op.create_index("ix_document_requests_created_at", "document_requests", ["created_at"])
    op.add_column(
        "sessions",
        sa.Column("document_horizon", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column(
        "tenant_usage",
        sa.Column("documents", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    if op.get_bind().dialect.name == "postgresql":
        is_on = op.get_bind().exec_driver_sql(IS_ON).scalar_one()
        for table in TABLES:
            op.execute(f"CREATE POLICY memoryd_tenants ON {table} USING ({NAMED})")
            if is_on:
                op.execute(
                    f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
                )


def downgrade() -> None:
    op.drop_column("tenant_usage", "documents")
    op.drop_column("sessions", "document_horizon")
    for table in reversed(TABLES):
        op.drop_table(table)
