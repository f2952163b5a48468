"""The audit as it is read: over the wire, by the command line, and whether it is whole."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from tests.access.audit_lines import is_chain, lines_of
from tests.access.guarded import Caller, outcome

from memoryd.domain.audit import FIRST_HASH, Event, Kind, line_of, problem_of
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2

Rows = list[tuple[Any, ...]]


async def erase(caller: Caller, count: int) -> None:
    for number in range(count):
        request = memory_pb2.EraseSessionRequest(session_id=f"user-7.{number}")
        await caller.memory("EraseSession", request)


@pytest.fixture
async def written(guarded, tables):
    """A database with 21 lines of two tenants and of no one, whose server has stopped."""
    await erase(await guarded.caller("acme"), 5)
    await erase(await guarded.caller("other"), 3)
    await outcome(guarded.with_key().access("WhoAmI", pb.WhoAmIRequest()))
    await guarded.server.stop()
    lines = await lines_of(tables)
    assert len(lines) == 21
    return lines


@pytest.fixture
def audit(command_line, database_url):
    """Run `memoryd audit`."""

    async def run(*arguments: str, code: int = 0) -> Any:
        url = {"MEMORYD_DATABASE_URL": database_url}
        done = await asyncio.to_thread(command_line.run, "audit", *arguments, **url)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


# Over the wire


async def pages(caller: Caller, **request: Any) -> list[Any]:
    listing, found = pb.ListAuditEventsRequest(page_size=3, **request), []
    while True:
        page = await caller.access("ListAuditEvents", listing)
        assert len(page.audit_events) <= 3
        found += page.audit_events
        listing.page_token = page.next_page_token
        if not listing.page_token:
            return found


async def settled(tables: Any, eventually: Any, count: int) -> list[dict[str, Any]]:
    async def are_there() -> bool:
        return len(await lines_of(tables)) == count

    await eventually(are_there)
    return await lines_of(tables)


async def test_lines_are_listed_by_tenant_newest_first(guarded, tables, eventually):
    acme, other = await guarded.caller("acme"), await guarded.caller("other")
    await erase(acme, 4)
    await erase(other, 2)
    lines = await settled(tables, eventually, 16)
    for caller, tenant in ((acme, "acme"), (other, "other")):
        found = await pages(caller)
        own = [line["seq"] for line in lines if line["tenant"] == tenant]
        assert [event.seq for event in found] == own[::-1]
        assert {event.tenant for event in found} == {tenant}
    every = await pages(guarded.admin, all_tenants=True)
    assert [event.seq for event in every] == list(range(16, 0, -1))
    named = await pages(guarded.admin, tenant="acme")
    assert [event.seq for event in named] == [event.seq for event in await pages(acme)]


async def test_a_line_is_answered_field_by_field(guarded, tables, eventually):
    await erase(await guarded.caller("acme"), 1)
    *_, line = await settled(tables, eventually, 4)
    (event, *_) = await pages(guarded.admin, all_tenants=True)
    found = MessageToDict(event, preserving_proto_field_name=True)
    found["seq"] = int(found["seq"])
    found["counts"] = {name: int(count) for name, count in found["counts"].items()}
    assert datetime.fromisoformat(found.pop("time")) == datetime.fromisoformat(line.pop("time"))
    assert found == line


async def test_lines_since_a_time(guarded, tables, clock, eventually):
    caller = await guarded.caller("acme")
    await erase(caller, 1)
    await settled(tables, eventually, 4)
    clock.move(timedelta(hours=1))
    await erase(caller, 1)
    await settled(tables, eventually, 6)
    listing = pb.ListAuditEventsRequest()
    listing.since.FromDatetime(clock.now)
    page = await caller.access("ListAuditEvents", listing)
    assert [event.seq for event in page.audit_events] == [6, 5]
    listing.since.seconds = 10**15
    found = await outcome(caller.access("ListAuditEvents", listing))
    assert found is not None
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert found.message.startswith("since: ")


async def test_a_tenants_admin_sees_no_other_tenants_lines(guarded, tables, eventually):
    acme, other = await guarded.caller("acme"), await guarded.caller("other")
    await erase(acme, 4)
    await settled(tables, eventually, 12)
    for request in (
        pb.ListAuditEventsRequest(tenant="acme"),
        pb.ListAuditEventsRequest(all_tenants=True),
    ):
        found = await outcome(other.access("ListAuditEvents", request))
        assert found is not None
        assert (found.reason, found.metadata) == ("SCOPE_MISSING", {"scope": "instance:admin"})
    listing = pb.ListAuditEventsRequest(page_size=1)
    listing.page_token = (await acme.access("ListAuditEvents", listing)).next_page_token
    found = await outcome(other.access("ListAuditEvents", listing))
    assert found is not None
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    both = pb.ListAuditEventsRequest(tenant="acme", all_tenants=True)
    found = await outcome(guarded.admin.access("ListAuditEvents", both))
    assert found is not None
    assert found.message.startswith("tenant: ")


@pytest.mark.parametrize("event", ["no JSON", "[]", '{"seq":"x"}', '{"counts":{"a":"b"}}'])
async def test_a_line_that_was_changed_is_listed_all_the_same(guarded, tables, event, eventually):
    caller = await guarded.caller("acme")
    lines = await settled(tables, eventually, 2)
    changing = "UPDATE audit_events SET event = :event WHERE seq = 1 RETURNING seq"
    assert await tables.rows(changing, event=event)
    page = await caller.access("ListAuditEvents", pb.ListAuditEventsRequest())
    assert [(e.seq, e.hash) for e in page.audit_events] == [
        (line["seq"], line["hash"]) for line in reversed(lines)
    ]


# By the command line


async def test_the_command_prints_lines(written, audit):
    printed = (await audit("--json")).stdout.splitlines()
    assert [json.loads(line) for line in printed] == written
    of_other = (await audit("--json", "--tenant", "other")).stdout.splitlines()
    assert [json.loads(line) for line in of_other] == [
        line for line in written if line.get("tenant") == "other"
    ]
    text = (await audit("--tenant", "other")).stdout.splitlines()
    assert len(text) == len(of_other)
    assert all("method=/memoryd.v1." in line and "hash=" not in line for line in text)
    assert (await audit("--since", "24h")).stdout == ""
    assert len((await audit("--since", "20000d")).stdout.splitlines()) == len(written)
    assert len((await audit("--since", written[0]["time"])).stdout.splitlines()) == len(written)
    assert (await audit("--since", "2026-03-01T12:00:01Z")).stdout == ""


async def test_lines_about_a_session_are_found_by_its_id(written, audit):
    options = ("--json", "--tenant", "acme", "--session")
    found = (await audit(*options, "user-7.3")).stdout.splitlines()
    lines = [json.loads(line) for line in found]
    assert [line["kind"] for line in lines] == ["begun", "ended"]
    assert all(line in written and line["method"].endswith("/EraseSession") for line in lines)
    assert (await audit(*options, "user-7.9")).stdout == ""
    assert (await audit("--tenant", "none", "--session", "user-7.3")).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "soon"), "--since: "),
        (("--tenant", "Acme"), "--tenant: "),
        (("--session", "user-7.3"), "--tenant"),
        (("verify", "--expect", "7"), "--expect: "),
        (("--json", "verify"), "behind verify"),
    ],
)
async def test_the_command_names_the_option_that_is_wrong(audit, arguments, words):
    done = await audit(*arguments, code=1)
    assert words in done.stderr
    assert done.stdout == ""


async def test_following_goes_on_with_new_lines(guarded, command_line, database_url, tables):
    url = {"MEMORYD_DATABASE_URL": database_url}
    caller = await guarded.caller("acme")
    following = command_line.start("audit", "--json", "--follow", "--since", "20000d", **url)
    await asyncio.to_thread(following.wait_for, lambda: following.output.count("\n") == 2)
    await erase(caller, 2)
    await asyncio.to_thread(following.wait_for, lambda: following.output.count("\n") == 6)
    assert following.stop() == 0
    assert following.log == ""
    lines = [json.loads(line) for line in following.output.splitlines()]
    assert lines == await lines_of(tables)


# Whether it is whole


async def test_verify_says_where_the_chain_ends(written, audit):
    last = written[-1]
    assert is_chain(written)
    done = await audit("verify")
    assert f"{last['seq']}:{last['hash']}" in done.stdout
    verdict = json.loads((await audit("verify", "--json")).stdout)
    assert verdict == {
        "is_whole": True,
        "lines": len(written),
        "first_seq": 1,
        "last_seq": last["seq"],
        "last_hash": last["hash"],
        "problems": [],
    }


async def test_an_audit_without_lines_is_whole(audit):
    assert json.loads((await audit("verify", "--json")).stdout)["lines"] == 0


CHANGES = {
    "an edit": (
        5,
        ["UPDATE audit_events SET event = replace(event, 'acme', 'ocme') WHERE seq = 5"],
    ),
    "an edit of a column": (5, ["UPDATE audit_events SET tenant = 'ocme' WHERE seq = 5"]),
    "an edit of the time": (
        5,
        ["UPDATE audit_events SET time = '2026-03-02 12:00:00.000000' WHERE seq = 5"],
    ),
    "an edit of a hash": (
        5,
        [f"UPDATE audit_events SET hash = '{FIRST_HASH}' WHERE seq = 5"],  # noqa: S608  constants
    ),
    "no JSON": (5, ["UPDATE audit_events SET event = 'x' WHERE seq = 5"]),
    "a cut in the middle": (8, ["DELETE FROM audit_events WHERE seq BETWEEN 5 AND 7"]),
    "a cut at the beginning": (3, ["DELETE FROM audit_events WHERE seq < 3"]),
    "a cut in the middle, closed up": (
        5,
        [
            "DELETE FROM audit_events WHERE seq = 5",
            "UPDATE audit_events SET seq = seq + 1000 WHERE seq > 5",
            "UPDATE audit_events SET seq = seq - 1001 WHERE seq > 1000",
            "UPDATE audit_head SET seq = 20",
        ],
    ),
    "a swap": (
        5,
        [
            "UPDATE audit_events SET seq = 1000 WHERE seq = 5",
            "UPDATE audit_events SET seq = 5 WHERE seq = 9",
            "UPDATE audit_events SET seq = 9 WHERE seq = 1000",
        ],
    ),
    "a cut at the end": (18, ["DELETE FROM audit_events WHERE seq > 18"]),
    "a line put in": (
        22,
        [
            (
                "INSERT INTO audit_events SELECT 22, time, tenant, event, hash"
                " FROM audit_events WHERE seq = 5"
            ),
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_verify_finds_what_was_done_to_lines(written, audit, tables, change):
    seq, statements = CHANGES[change]
    for statement in statements:
        await tables.execute(statement)
    done = await audit("verify", "--json", code=1)
    assert done.stderr.startswith(f"line {seq}: ")
    verdict = json.loads(done.stdout)
    assert not verdict["is_whole"]
    assert verdict["problems"][0]["seq"] == seq
    assert written


async def test_lines_written_anew_are_found_where_the_place_of_the_next_is_known(
    written, audit, tables
):
    """Who may write to the table may also calculate: what is kept elsewhere tells."""
    last = written[-1]
    place = f"{last['seq']}:{last['hash']}"
    await audit("verify", "--expect", place)
    await audit("verify", "--expect", f"5:{written[4]['hash']}")
    wrong = f"5:{written[5]['hash']}"
    assert "line 5: " in (await audit("verify", "--expect", wrong, code=1)).stderr
    cut = written[17]
    await tables.execute("DELETE FROM audit_events WHERE seq > 18")
    await tables.execute(f"UPDATE audit_head SET seq = 18, hash = '{cut['hash']}'")  # noqa: S608  a hash
    await audit("verify")
    done = await audit("verify", "--expect", place, code=1)
    assert f"line {last['seq']}: " in done.stderr


@given(
    st.lists(st.text(max_size=20), min_size=2, max_size=6),
    st.integers(0, 5),
    st.text(min_size=1, max_size=10),
)
def test_no_changed_line_is_one_of_the_chain(names, place, other):
    place %= len(names)
    lines, previous = [], FIRST_HASH
    for seq, name in enumerate(names, 1):
        event = Event(datetime(2026, 3, 1, tzinfo=UTC), Kind.ENDED, tenant="acme", principal=name)
        lines.append(line_of(event, (), seq, previous))
        previous = lines[-1].hash
    hashes = [FIRST_HASH, *(line.hash for line in lines)]
    assert not any(problem_of(line, line.seq, hashes[line.seq - 1]) for line in lines)
    line = lines[place]
    changed = line._replace(event=line.event + other)
    assert problem_of(changed, line.seq, hashes[place])
    assert problem_of(line, line.seq, hashes[place][::-1] + other)


# What is kept


async def test_old_lines_are_dropped_and_the_rest_is_whole(guard, tables, clock, audit, eventually):
    guarded = await guard(MEMORYD_AUDIT_DAYS="30")
    caller = await guarded.caller("acme")
    await erase(caller, 2)
    await settled(tables, eventually, 6)
    clock.move(timedelta(days=20))
    await erase(caller, 2)
    before = await settled(tables, eventually, 10)
    assert await guarded.server.drop_old_lines() == 0
    clock.move(timedelta(days=11))
    assert await guarded.server.drop_old_lines() == 6
    assert await lines_of(tables) == before[6:]
    verdict = json.loads((await audit("verify", "--json")).stdout)
    assert (verdict["first_seq"], verdict["lines"]) == (7, 4)
    await audit("verify", "--expect", f"6:{before[5]['hash']}")
    done = await audit("verify", "--expect", f"3:{before[2]['hash']}", code=1)
    assert "dropped for its age" in done.stderr
    clock.move(timedelta(days=400))
    assert await guarded.server.drop_old_lines() == 4
    await guarded.admin.access("UpdateTenant", pb.UpdateTenantRequest(tenant="acme"))
    lines = await settled(tables, eventually, 2)
    assert [line["seq"] for line in lines] == [11, 12]
    assert lines[0]["previous_hash"] == before[-1]["hash"]
    await audit("verify")


# Commands


async def test_commands_on_keys_leave_lines_where_there_is_an_audit(
    guarded, command_line, database_url, tables, eventually
):
    url = {"MEMORYD_DATABASE_URL": database_url}
    options = ("--tenant", "acme", "--name", "ci", "--scope", "agent")

    async def run(*arguments: str, **variables: str) -> str:
        done = await asyncio.to_thread(command_line.run, *arguments, **url, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    await run("keys", "create", *options)
    assert await lines_of(tables) == []
    await guarded.key("acme")
    await settled(tables, eventually, 2)
    key_id = json.loads(await run("keys", "create", *options, "--json"))["key_id"]
    rotated = json.loads(await run("keys", "rotate", key_id, "--overlap", "1h", "--json"))
    await run("keys", "revoke", key_id)
    await run("keys", "list")
    await run("export", "exported")
    lines = (await lines_of(tables))[2:]
    assert [
        (line["method"], line["kind"], line.get("tenant", ""), line.get("target", ""))
        for line in lines
    ] == [
        ("memoryd keys create", "begun", "acme", ""),
        ("memoryd keys create", "ended", "acme", f"api_keys/{key_id}"),
        ("memoryd keys rotate", "begun", "", f"api_keys/{key_id}"),
        ("memoryd keys rotate", "ended", "acme", f"api_keys/{rotated['key_id']}"),
        ("memoryd keys revoke", "begun", "", f"api_keys/{key_id}"),
        ("memoryd keys revoke", "ended", "acme", f"api_keys/{key_id}"),
        ("memoryd export", "begun", "", ""),
        ("memoryd export", "ended", "", ""),
    ]
    assert {line["peer"] for line in lines} == {"command line"}
    assert all(line["principal"] for line in lines)
    assert "keys create" not in (command_line.folder / "exported").read_text()
    done = await asyncio.to_thread(command_line.run, "keys", "revoke", "0123456789AB", **url)
    assert done.returncode == 1
    assert (await lines_of(tables))[-1]["reason"] == "KEY_NOT_FOUND"
    assert is_chain(await lines_of(tables))


async def test_a_command_that_cannot_be_recorded_is_not_done(command_line, database_url, tables):
    await tables.execute("ALTER TABLE audit_events RENAME TO audit_events_away")
    options = ("--tenant", "acme", "--name", "ci", "--scope", "agent")
    done = await asyncio.to_thread(
        command_line.run,
        *("keys", "create", *options),
        MEMORYD_DATABASE_URL=database_url,
        MEMORYD_AUDIT="changes",
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "audit" in done.stderr
    assert await tables.rows("SELECT * FROM api_keys") == []
