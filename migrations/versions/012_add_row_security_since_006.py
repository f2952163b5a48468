"""Policies for row-level security on PostgreSQL, which they do not turn on.

Compatibility: a policy holds only where row-level security is on. `memoryd migrate` turns it on for
new databases, and for others when it finds them migrated already: older servers name no tenants and
would find no rows.
"""

from __future__ import annotations

from alembic import op

revision = "012_add_row_security_since_006"
down_revision = "011_add_audit_since_006"
branch_labels = None
depends_on = None

TABLES = (
    "api_keys",
    "audit_events",
    "memories",
    "memory_history",
    "memory_vectors",
    "revision_floors",
    "session_floors",
    "session_ref_keys",
    "sessions",
    "store_requests",
    "tenant_tool_configs",
    "tenant_tool_heads",
    "tenant_tool_revisions",
    "tenant_usage",
    "tenants",
)

# The first of the three is nearly always enough, and no index can serve all of them: so plans stay
# those by the whole key.
NAMED = """
    tenant = nullif(current_setting('memoryd.tenants', true), '')
    OR current_setting('memoryd.tenants', true) = '*'
    OR tenant = ANY (string_to_array(current_setting('memoryd.tenants', true), ','))
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in TABLES:
            op.execute(f"CREATE POLICY memoryd_tenants ON {table} USING ({NAMED})")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in TABLES:
            op.execute(f"DROP POLICY memoryd_tenants ON {table}")
            op.execute(
                f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
            )
