"""Credentials, contents and sessions: in no audit line, no log, no error, and not in the file.

Every method is called, with canaries wherever a caller can put one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import make_url
from tests.access.audit_lines import is_chain, lines_of
from tests.access.guarded import Caller, outcome
from tests.access.test_matrix import METHODS, refused, request_for

from memoryd.access.api_key import new_key
from memoryd.v1 import access_pb2 as pb
from memoryd.v1 import memory_pb2

SESSION = "user-7.c4n4ry-session"
CONTENT = "c4n4ry-content"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.c4n4ryclaims.c4n4rysignature"  # noqa: S105  nobody's


def requests(key: str) -> Iterator[tuple[Any, Any]]:
    """Requests of every method, with a canary in each text that takes one."""
    for method in METHODS:
        request: Any = request_for(method, SESSION)
        fields = method.input_type.fields_by_name
        if "content" in fields:
            request.content = CONTENT
        if "query" in fields:
            request.query = CONTENT
        if "namespace" in fields:
            request.key = CONTENT
        if "document" in fields:
            request.document.key = request.document.text = CONTENT
        for item in getattr(request, "requests", ()):
            item.content = f"{CONTENT} {id(item)}"
        yield method, request
        for name in ("key_id", "page_token", "memory_id", "etag", "tenant", "tool"):
            if name in fields:
                wrong = type(request)()
                wrong.CopyFrom(request)
                setattr(wrong, name, key)
                yield method, wrong
        if "force" in fields:
            request.force = True
            yield method, request


def files_of(url: str) -> list[bytes]:
    if not url.startswith("sqlite"):
        return []
    file = Path(make_url(url).database or "")
    return [found.read_bytes() for found in file.parent.glob(f"{file.name}*")]


@pytest.mark.parametrize("mode", ["changes", "all"])
async def test_nothing_shows_a_canary(command_line, database_url, tables, mode):
    url = {"MEMORYD_DATABASE_URL": database_url}

    async def key_of(tenant: str, *scopes: str) -> str:
        options = [part for scope in scopes for part in ("--scope", scope)]
        command = ("keys", "create", "--tenant", tenant, "--name", "n", *options)
        done = await asyncio.to_thread(command_line.run, *command, **url)
        return str(done.stdout.strip())

    admin = await key_of("default", "operator", "tenant:admin", "instance:admin")
    reader, unknown = await key_of("acme", "memories:read"), new_key().text
    server = command_line.serve(
        **url, MEMORYD_AUTH="required", MEMORYD_AUDIT=mode, MEMORYD_LOG_LEVEL="debug"
    )
    address = await asyncio.to_thread(server.address)
    errors = []
    async with grpc.aio.insecure_channel(address) as channel:
        for method, request in requests(admin):
            for credentials in ((admin,), (reader,), (unknown,), (TOKEN,), (admin, reader)):
                found = await refused(Caller(channel, *credentials), method, request)
                errors.append(repr(found))
        caller = Caller(channel, admin)
        erase = memory_pb2.EraseSessionRequest(session_id=SESSION)
        assert await outcome(caller.memory("EraseSession", erase)) is None
        listing = pb.ListAuditEventsRequest(all_tenants=True, page_size=1000)
        page = await caller.access("ListAuditEvents", listing)
    assert await asyncio.to_thread(server.stop) == 0
    lines = await lines_of(tables)
    assert is_chain(lines)
    assert len(lines) > len(METHODS)
    printed = await asyncio.to_thread(command_line.run, "audit", "--json", **url)
    seen = [json.dumps(lines), str(page), printed.stdout, server.log, server.output, *errors]
    secrets = [key[17:60] for key in (admin, reader, unknown)]
    for text in seen:
        for canary in ("c4n4ry", *secrets):
            assert canary not in text
    for data in files_of(database_url):
        for canary in ("c4n4ry", *secrets):
            assert canary.encode() not in data
