"""Who is who at PostgreSQL: services serve with a role that has no rights of its own over tenants.

So everything that the tests do through a service goes through row-level security.
"""

from __future__ import annotations

from sqlalchemy import make_url

SERVING_ROLE = "memoryd_server"
"""What services call themselves: neither a superuser nor the tables' owner."""

SUPERUSER = "postgres"


def as_serving_role(url: str) -> str:
    """The URL by which a service uses a database of PostgreSQL."""
    return make_url(url).set(username=SERVING_ROLE).render_as_string(hide_password=False)


def as_superuser(url: str) -> str:
    """The URL by which a test looks at a service's database itself; SQLite's as it is."""
    parsed = make_url(url)
    if parsed.username == SERVING_ROLE:
        parsed = parsed.set(username=SUPERUSER)
    return parsed.render_as_string(hide_password=False)
