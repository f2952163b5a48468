"""`memoryd keys`: API keys, on the database itself, so that the first one needs no other."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.access.administration import KeyAdministration, lifetime_end
from memoryd.access.api_key import key_target
from memoryd.access.keys import Grant
from memoryd.cli.data import database_of, migrate_embedded
from memoryd.cli.recording import Recording
from memoryd.cli.running import checked, configuration, fail, logging, run
from memoryd.cli.spans import span_of
from memoryd.domain.principals import SessionRules, scopes_of, tenant_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from memoryd.access.administration import NewKey
    from memoryd.access.keys import ApiKey
    from memoryd.settings.service import Settings

PAGE = 1000
"""Keys that are read at once."""

MAX_NAME_CHARACTERS = 128
MAX_OVERLAP = timedelta(days=30)


class KeyOptions(NamedTuple):
    """What a key shall give, as the command line has it."""

    tenant: str
    name: str
    scopes: Sequence[str]
    sessions: Sequence[str]
    expires: str | None
    no_expiry: bool


def create(database_url: str | None, options: KeyOptions, *, first: bool, as_json: bool) -> None:
    grant = _grant(options)

    async def work(keys: KeyAdministration, record: Recording) -> None:
        async with record.of("memoryd keys create", tenant=grant.tenant) as recorded:
            made = await (keys.create_first(grant) if first else keys.create(grant, None))
            if made is not None:
                recorded.target = key_target(made.key.key_id)
        if made is None:
            print("there is a key already; none was made", file=sys.stderr)
        else:
            _print_new(made, as_json=as_json)

    _run(database_url, work, makes_database=True)


def list_all(database_url: str | None, tenant: str | None, *, as_json: bool) -> None:
    if tenant is not None:
        checked("--tenant", lambda: tenant_of(tenant))

    async def work(keys: KeyAdministration, _: Recording) -> None:
        found: list[ApiKey] = []
        while page := await keys.page(tenant, after=found[-1].key_id if found else "", size=PAGE):
            found += page
        if as_json:
            print(json.dumps([_listed(key) for key in found], indent=2))
            return
        now = _now()
        for key in found:
            grant = key.grant
            print(
                f"{key.key_id}  {grant.tenant}  {grant.name}  {_state(key, now)}"
                f"  {' '.join(sorted(grant.scopes))}  {' '.join(grant.sessions.texts)}".rstrip()
            )

    _run(database_url, work)


def revoke(database_url: str | None, key_id: str) -> None:
    async def work(keys: KeyAdministration, record: Recording) -> None:
        async with record.of("memoryd keys revoke", target=key_target(key_id)) as recorded:
            key = await keys.revoke(key_id, None, None)
            recorded.tenant = key.grant.tenant
        print(f"revoked {key.key_id} of {key.grant.tenant}")

    _run(database_url, work)


def rotate(database_url: str | None, key_id: str, overlap: str, *, as_json: bool) -> None:
    span = span_of("--overlap", overlap)
    if span > MAX_OVERLAP:
        fail(f"--overlap: must be at most {MAX_OVERLAP.days}d")

    async def work(keys: KeyAdministration, record: Recording) -> None:
        async with record.of("memoryd keys rotate", target=key_target(key_id)) as recorded:
            made = await keys.rotate(key_id, None, None, overlap=span)
            recorded.tenant = made.key.grant.tenant
            recorded.target = key_target(made.key.key_id)
        _print_new(made, as_json=as_json)

    _run(database_url, work)


def _run(
    database_url: str | None,
    work: Callable[[KeyAdministration, Recording], Coroutine[Any, Any, None]],
    *,
    makes_database: bool = False,
) -> None:
    """`makes_database`: make an SQLite file and its schema where they are not there yet."""
    settings, _ = configuration(database_url=database_url)
    with logging(settings):
        run(_with_keys(settings, work, makes_database=makes_database))


def _now() -> datetime:
    return datetime.now(UTC)


async def _with_keys(
    settings: Settings,
    work: Callable[[KeyAdministration, Recording], Coroutine[Any, Any, None]],
    *,
    makes_database: bool,
) -> None:
    if makes_database:
        await migrate_embedded(settings)
    async with database_of(settings) as database:
        await work(KeyAdministration(database, _now), Recording(database, settings))


def _grant(options: KeyOptions) -> Grant:
    tenant = checked("--tenant", lambda: tenant_of(options.tenant))
    scopes = checked("--scope", lambda: scopes_of(options.scopes))
    sessions = checked("--session", lambda: SessionRules(options.sessions))
    name = options.name
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        fail(f"--name: must be 1 to {MAX_NAME_CHARACTERS} characters that can be printed")
    if options.no_expiry:
        if options.expires is not None:
            fail("--expires and --no-expiry exclude each other: give one")
        return Grant(tenant, name, scopes, sessions, None)
    lifetime = None if options.expires is None else span_of("--expires", options.expires)
    if lifetime == timedelta():
        fail("--expires: must be more than zero")
    try:
        return Grant(tenant, name, scopes, sessions, lifetime_end(_now(), lifetime, None))
    except OverflowError:
        fail("--expires: must end before the year 10000; for a key that never ends, --no-expiry")


def _print_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"key": made.text.text, **_described(made.key)}))
    else:
        print(made.text.text)


def _described(key: ApiKey) -> dict[str, object]:
    grant = key.grant
    return {
        "key_id": key.key_id,
        "tenant": grant.tenant,
        "name": grant.name,
        "scopes": sorted(grant.scopes),
        "sessions": list(grant.sessions.texts),
        "expire_time": _iso(grant.expires_at),
    }


def _listed(key: ApiKey) -> dict[str, object]:
    return {
        **_described(key),
        "create_time": _iso(key.created_at),
        "revoke_time": _iso(key.revoked_at),
        "last_used_time": _iso(key.last_used_at),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _state(key: ApiKey, now: datetime) -> str:
    expires_at = key.grant.expires_at
    if key.revoked_at is not None:
        return "revoked"
    if expires_at is None:
        return "never expires"
    verb = "expired" if expires_at <= now else "expires"
    return f"{verb} {expires_at:%Y-%m-%d}"
