"""No metric and no span shows what callers send: contents, queries, sessions, credentials."""

from __future__ import annotations

import asyncio
import json

import grpc.aio
import pytest
from tests import collector as collectors
from tests.access.guarded import Caller
from tests.access.test_audit_canaries import CONTENT, SESSION, TOKEN, requests
from tests.access.test_matrix import refused
from tests.http_channel import HttpChannel
from tests.scrapes import scrape

from memoryd.access.api_key import new_key


def http_of(server) -> str:
    return server.output.partition("memoryd http on http://")[2].splitlines()[0]


@pytest.mark.parametrize("door", ["grpc", "http"])
async def test_nothing_measured_shows_a_canary(command_line, database_url, door):
    url = {"MEMORYD_DATABASE_URL": database_url}
    options = [part for s in ("operator", "instance:admin") for part in ("--scope", s)]
    command = ("keys", "create", "--tenant", "default", "--name", "n", *options)
    made = await asyncio.to_thread(command_line.run, *command, **url)
    admin, unknown = made.stdout.strip(), new_key().text
    collector, receiving = collectors.start()
    server = command_line.serve(
        **url,
        MEMORYD_AUTH="required",
        MEMORYD_LOG_LEVEL="debug",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}",
    )
    address = await asyncio.to_thread(server.address)
    http = http_of(server)
    async with grpc.aio.insecure_channel(address) as channel:
        way = HttpChannel(http, channel) if door == "http" else channel
        for method, request in requests(admin):
            for credentials in ((admin,), (unknown,), (TOKEN,)):
                await refused(Caller(way, *credentials), method, request)
    scrapes = [(await scrape(http, key)).text for key in ("", admin)]
    assert await asyncio.to_thread(server.stop) == 0
    receiving.stop(None).wait()

    assert 'rpc_response_status_code="OK"' in scrapes[0]
    assert 'tenant="default"' in scrapes[1]
    names = {span.name.split()[0] for span in collector.spans}
    assert {"write", "retrieval", "transaction"} <= names
    assert CONTENT in json.dumps([str(request) for _, request in requests(admin)])
    spans = b"".join(collector.raw)
    for canary in ("c4n4ry", SESSION, CONTENT, TOKEN, admin[17:60], unknown[17:60]):
        assert canary.encode() not in spans
        for text in (*scrapes, server.log):
            assert canary not in text
