"""Database URLs: which are accepted, what the driver gets, and that no secret is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.database.urls import (
    UrlError,
    check_url,
    connect_seconds,
    driver_url,
    has_password,
    shown,
)

PG = "postgresql+asyncpg://"
CANARY = "c4n4ry"


@pytest.mark.parametrize(
    ("url", "query"),
    [
        (f"{PG}u:p@h/d", {}),
        (f"{PG}u:p@h/d?sslmode=require", {"dsn": "postgresql://?sslmode=require"}),
        (f"{PG}u:p@h/d?ssl=require", {"ssl": "require"}),
        (f"{PG}u:p@h/d?sslmode=prefer&channel_binding=prefer&gssencmode=disable", {
            "dsn": "postgresql://?sslmode=prefer"
        }),
        (f"{PG}u@h/d?application_name=a%20b&options=-csearch_path%3Dx", {
            "dsn": "postgresql://?application_name=a+b&options=-csearch_path%3Dx"
        }),
        (f"{PG}u@h/d?connect_timeout=3", {}),
        (f"{PG}u@h?dbname=d", {"database": "d"}),
        (f"{PG}u@/d?host=a:1&host=b:2", {"host": ("a:1", "b:2")}),
        (f"{PG}u@/d?host=a,b&port=1,2", {"host": "a,b", "port": "1,2"}),
        (f"{PG}u@/d?host=/run/postgresql", {"host": "/run/postgresql"}),
        (f"{PG}u@h/d?target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        (f"{PG}user@server:p@h/d", {}),
        (f"{PG}u:a/b?c#d:e@h:5432/d", {}),
        (f"{PG}u:p@[::1]:5432/d", {}),
        ("sqlite+aiosqlite:///memoryd.db", {}),
        ("sqlite+aiosqlite:///file:x.db?mode=rwc&uri=true", {"mode": "rwc", "uri": "true"}),
    ],
)  # fmt: skip
def test_what_the_driver_gets(url: str, query: dict[str, object]) -> None:
    assert dict(driver_url(url).query) == query


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://u:p@h/d", f"write {PG} in place of postgres://"),
        ("postgresql://u:p@h/d", f"write {PG} in place of postgresql://"),
        ("postgresql+psycopg2://u:p@h/d", f"write {PG} in place of postgresql+psycopg2://"),
        ("sqlite:///x.db", "write sqlite+aiosqlite:// in place of sqlite://"),
        ("mysql://h/d", "SQLite or PostgreSQL"),
        ("memoryd.db", "sqlite+aiosqlite:///FILE"),
        ("sqlite+aiosqlite://x.db", "sqlite+aiosqlite:///FILE"),
        ("sqlite+aiosqlite:///:memory:", "in memory keeps nothing"),
        ("sqlite+aiosqlite:///x.db?mode=ro", "uri=true"),
        ("sqlite+aiosqlite:///x.db?timeout=3", "no such parameter"),
        (f"{PG}u:first@second@h/d", "%40"),
        (f"{PG}u:p@s/s@h/d", "%40"),
        (f"{PG}u:p@s?s@h/d", "%40"),
        (f"{PG}a@b@c:p@h/d", "%40"),
        (f"{PG}u:word/d", "%3A"),
        (f"{PG}u:p@h:0/d", "port"),
        (f"{PG}u:p@h1:1,h2:2/d", "?host=HOST1:5432&host=HOST2:5432"),
        (f"{PG}u@h/d?sslmode=maybe", "sslmode: expected disable, allow"),
        (f"{PG}u@h/d?ssl=true", "ssl: expected disable, allow"),
        (f"{PG}u@h/d?sslmod=require", "did you mean sslmode?"),
        (f"{PG}u@h/d?sslmode=prefer&sslmode=require", "twice"),
        (f"{PG}u@h/d?sslmode=", "sslmode is empty"),
        (f"{PG}u@h/d?channel_binding=require", "sslmode=verify-full"),
        (f"{PG}u@h/d?gssencmode=require", "sslmode=require"),
        (f"{PG}u@h/d?sslrootcert=/nowhere/ca.crt", "/nowhere/ca.crt: No such file"),
        (f"{PG}u@h/d?sslrootcert=system", "name their file"),
        (f"{PG}u@h/d?passfile=/nowhere/pgpass", "/nowhere/pgpass: No such file"),
        (f"{PG}u@h/d?connect_timeout=soon", "connect_timeout: expected a whole number"),
        (f"{PG}u@h/d?keepalives=1", "MEMORYD_DATABASE_TIMEOUT_SECONDS"),
        (f"{PG}u@h/d?hostaddr=127.0.0.1", "as the host"),
        (f"{PG}u@h/d?pgbouncer=true", "MEMORYD_DATABASE_PGBOUNCER"),
        (f"{PG}u@/d?host=a%20b", "host"),
        (f"{PG}u@/d?host=a&host=b", "host=HOST1:5432"),
        (f"{PG}u@/d?host=a,b", "host=HOST1:5432"),
        (f"{PG}u@/d?host=a,b&port=1,", "host=HOST1:5432"),
        (f"{PG}u@/d?host=a:1,b:2", "host=HOST1:5432"),
        (f"{PG}u@/d?host=a:1&host=b:2&port=3", "host=HOST1:5432"),
        (f"{PG}u@/d?host=a&port=1,2", "host=HOST1:5432"),
        (f"{PG}u@/d?host=[::1]:1&host=b:2", "[::1]:5432"),
        (f"{PG}u@/d?host=a:x", "port"),
    ],
)
def test_what_is_refused_and_what_to_write(url: str, words: str) -> None:
    with pytest.raises(UrlError) as refused:
        check_url(url)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "seconds"), [("", None), ("?connect_timeout=0", None), ("?connect_timeout=7", 7.0)]
)
def test_how_long_connecting_may_take(given: str, seconds: float | None) -> None:
    assert connect_seconds(f"{PG}u@h/d{given}") == seconds


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        (f"{PG}u:p@h/d", True),
        (f"{PG}u@h/d?password=p", True),
        (f"{PG}u@h/d?sslpassword=p", True),
        (f"{PG}u:a@b@h/d", True),
        ("postgres://u:p@h/d", True),
        (f"{PG}u@h/d", False),
        (f"{PG}u:@h/d", False),
        ("sqlite+aiosqlite:///memoryd.db", False),
    ],
)
def test_whether_a_url_contains_a_secret(url: str, *, secret: bool) -> None:
    assert has_password(url) is secret


_PIECES = st.lists(
    st.sampled_from([CANARY, "@", "/", "?", "#", ":", "&", "=", ",", "[", "x"]), max_size=8
).map("".join)


@given(
    _PIECES, _PIECES, st.sampled_from(["", "?sslmode=require", "?host=a&host=b", f"?x={CANARY}"])
)
def test_nothing_of_a_password_is_shown(before: str, after: str, query: str) -> None:
    url = f"{PG}u:{before}{CANARY}{after}@h:5432/d{query}"
    assert has_password(url)
    try:
        message = str(driver_url(url).set(password=None))
    except UrlError as error:
        message = str(error)
    else:
        assert driver_url(url).password == f"{before}{CANARY}{after}"
        message += shown(url)
    assert CANARY not in message
