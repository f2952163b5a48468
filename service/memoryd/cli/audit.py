"""`memoryd audit`: what the audit says, and whether it is whole; on the database itself."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from memoryd.audit.log import AuditLog, Place
from memoryd.cli.data import database_of
from memoryd.cli.running import configuration, fail, logging, run
from memoryd.cli.spans import SPAN_RULE, read_span
from memoryd.domain.audit import fields_of
from memoryd.domain.principals import InvalidGrant, tenant_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from memoryd.audit.log import Verdict
    from memoryd.domain.audit import Line
    from memoryd.settings.service import Settings

LOOK_SECONDS = 0.5
"""Between two looks for new lines."""

_HASHES = ("hash", "previous_hash")
_PLAIN = re.compile(r"[!-~]+")
_PLACE = re.compile(r"(?P<seq>[0-9]{1,18}):(?P<hash>[0-9a-f]{64})")


class Shown(NamedTuple):
    """Which lines to print, and how."""

    since: datetime | None
    tenant: str | None
    session_id: str | None
    as_json: bool


def show(
    database_url: str | None,
    *,
    since: str | None,
    tenant: str | None,
    session: str | None,
    as_json: bool,
    follow: bool,
) -> None:
    """Print lines, the oldest first; `follow`: until the process is ended."""
    if tenant is not None:
        try:
            tenant_of(tenant)
        except InvalidGrant as error:
            fail(f"--tenant: {error}")
    elif session is not None:
        fail("--session: give --tenant, too; sessions of two tenants may have the same id")
    shown = Shown(None if since is None else _moment(since), tenant, session, as_json)

    async def work(log: AuditLog) -> None:
        if follow:
            following = asyncio.create_task(_follow(log, shown))
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, following.cancel)
            with suppress(asyncio.CancelledError):
                await following
        else:
            await _print_after(log, shown, await _start(log, shown, from_end=False))

    _run(database_url, work)


def verify(database_url: str | None, *, expect: str | None, as_json: bool) -> None:
    """Look whether the lines are one chain; exit with 1 where they are not."""
    place = None if expect is None else _PLACE.fullmatch(expect)
    if expect is not None and place is None:
        fail("--expect: expected SEQ:HASH, as verify prints the last line")
    expected = None if place is None else Place(int(place["seq"]), place["hash"])

    async def work(log: AuditLog) -> None:
        _report(await log.verify(expected), as_json=as_json)

    _run(database_url, work)


def _report(verdict: Verdict, *, as_json: bool) -> None:
    last = verdict.last
    if as_json:
        print(
            json.dumps(
                {
                    "is_whole": not verdict.problems,
                    "lines": verdict.lines,
                    "first_seq": verdict.first_seq,
                    "last_seq": last.seq,
                    "last_hash": last.hash,
                    "problems": [problem._asdict() for problem in verdict.problems],
                }
            )
        )
    for seq, what in verdict.problems:
        print(f"line {seq}: {what}", file=sys.stderr)
    if verdict.problems:
        raise SystemExit(1)
    if not as_json:
        print(f"{verdict.lines:,} lines from {verdict.first_seq} on are one chain; the last is")
        print(f"{last.seq}:{last.hash}")


async def _start(log: AuditLog, shown: Shown, *, from_end: bool) -> int:
    """Give the place behind which to begin."""
    if shown.since is not None:
        first = await log.start_of(shown.since)
        return (await log.end()).seq if first is None else first - 1
    return (await log.end()).seq if from_end else 0


async def _follow(log: AuditLog, shown: Shown) -> None:
    seq = await _start(log, shown, from_end=True)
    while True:
        seq = await _print_after(log, shown, seq)
        await asyncio.sleep(LOOK_SECONDS)


async def _print_after(log: AuditLog, shown: Shown, seq: int) -> int:
    """Print all that there is behind a place; give the last one."""
    while lines := await log.after(seq, shown.tenant):
        ref = None
        if shown.tenant is not None and shown.session_id is not None:
            ref = await log.refers_to(shown.tenant, shown.session_id) or ""
        for line in lines:
            # Those of several servers are not all in the order of their times.
            is_late = shown.since is None or line.time >= shown.since
            if is_late and (ref is None or ref in _fields(line).get("session_refs", ())):
                print(_as_json(line) if shown.as_json else _as_text(line))
        sys.stdout.flush()
        seq = lines[-1].seq
    return seq


def _as_json(line: Line) -> str:
    return json.dumps(_fields(line), sort_keys=True, separators=(",", ":"))


def _as_text(line: Line) -> str:
    fields = _fields(line)
    first = [str(fields.pop(name, "")) for name in ("time", "seq", "kind")]
    fields |= fields.pop("counts", {})
    rest = (f"{name}={_value(value)}" for name, value in fields.items() if name not in _HASHES)
    return " ".join((*first, *rest))


def _fields(line: Line) -> dict[str, Any]:
    try:
        return fields_of(line)
    except ValueError:
        fail(f"line {line.seq} was changed, and is no line of an audit; run `memoryd audit verify`")


def _value(value: object) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value))
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _moment(text: str) -> datetime:
    span = read_span(text)
    if span is not None:
        try:
            return datetime.now(UTC) - span
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--since: expected a time such as 2026-03-01T12:00:00Z, or {SPAN_RULE}")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _run(database_url: str | None, work: Callable[[AuditLog], Coroutine[Any, Any, None]]) -> None:
    settings, _ = configuration(database_url=database_url)
    with logging(settings):
        run(_with_log(settings, work))


async def _with_log(
    settings: Settings, work: Callable[[AuditLog], Coroutine[Any, Any, None]]
) -> None:
    async with database_of(settings) as database:
        await work(AuditLog(database))
