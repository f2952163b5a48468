"""The service over HTTP: the Connect protocol, gRPC-Web, probes, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import h11
import jsonschema
import pytest
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2
from tests import flags
from tests.http_client import (
    JSON,
    ask,
    call,
    details_of,
    exchange,
    framed,
    get,
    value_of,
)

from memoryd.http import endpoint
from memoryd.server import SERVICES
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1 import tool_config_pb2 as tool_pb

STORE = "/memoryd.v1.MemoryService/StoreMemory"
LIST = "/memoryd.v1.MemoryService/ListMemories"
EXPORT = "/memoryd.v1.MemoryService/ExportMemories"
WATCH = "/memoryd.v1.MemoryService/WatchMemories"
FACT = {"sessionId": "s", "content": "prefers e-mail"}
STORED = pb.StoreMemoryRequest(session_id="s", content="prefers e-mail")
PROTO = {"content-type": "application/proto"}
CONNECT_JSON = {"content-type": "application/connect+json"}
CONNECT_PROTO = {"content-type": "application/connect+proto"}
GRPC_WEB = {"content-type": "application/grpc-web+proto"}
GRPC_WEB_TEXT = {"content-type": "application/grpc-web-text"}


@pytest.fixture
def http(running) -> str:
    assert running.server.http_address is not None
    return running.server.http_address


# Connect, one message each way


async def test_a_call_with_json_is_the_call_of_grpc(http, memory):
    stored = await call(http, "StoreMemory", FACT)
    assert stored.status == 200
    assert stored.headers["content-type"] == "application/json"
    assert stored.json["outcome"] == "STORE_OUTCOME_CREATED"
    assert stored.headers["x-request-id"] == stored.headers["trailer-x-request-id"]
    found = [one async for one in memory.ExportMemories(pb.ExportMemoriesRequest(session_id="s"))]
    assert [one.memory_id for one in found] == [stored.json["memory"]["memoryId"]]


async def test_a_call_with_protobuf_answers_protobuf(http):
    stored = await ask(http, STORE, STORED.SerializeToString(), headers=PROTO)
    assert (stored.status, stored.headers["content-type"]) == (200, "application/proto")
    memory = pb.StoreMemoryResponse.FromString(stored.body).memory
    assert memory.content == "prefers e-mail"


@pytest.mark.parametrize("service", SERVICES)
async def test_every_method_is_served(http, service):
    for method in descriptor_pool.Default().FindServiceByName(service).methods:
        streams = method.client_streaming or method.server_streaming
        path = f"/{service}/{method.name}"
        if streams:
            async with exchange(http, path, framed(b"{"), CONNECT_JSON) as found:
                assert found.status == 200
                ((flags, end),) = [frame async for frame in found.frames()]
                assert (flags, json.loads(end)["error"]["code"]) == (2, "invalid_argument")
        else:
            refused = await ask(http, path, b"{", headers=JSON)
            expected = (400, "invalid_argument")
            if refused.status != 400:  # what is for admins is refused unread
                assert service == "memoryd.v1.AccessService"
                expected = (403, "permission_denied")
            assert (refused.status, refused.json["code"]) == expected, path


async def test_a_refusal_says_what_grpc_says(http):
    refused = await call(http, "StoreMemory", {"sessionId": "", "content": ""})
    assert refused.status == 400
    assert refused.json["code"] == "invalid_argument"
    kept = {one["type"]: value_of(one) for one in refused.json["details"]}
    wrong = error_details_pb2.BadRequest.FromString(kept["google.rpc.BadRequest"])
    assert [each.field for each in wrong.field_violations] == ["session_id", "content"]
    shown = details_of(refused.json)
    assert shown["google.rpc.ErrorInfo"]["reason"] == "ERROR_REASON_INVALID_REQUEST"
    absent = await call(http, "GetMemory", {"sessionId": "s", "key": "k"})
    assert (absent.status, absent.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "MALFORMED"),
        (b"[]", "MALFORMED"),
        (b"{", "MALFORMED"),
        (b'{"sessionIdx": "s"}', "sessionIdx"),
        (b'{"session_id": 4}', "session_id"),
        (b'{"session_id": "\xff"}', "UTF-8"),
        (b'{"metadata": ' + b'{"a":' * 5_000, "depth"),
        (b'{"sessionId": "s", "sessionId": "t"}', "sessionId"),
    ],
)
async def test_json_that_is_no_request_is_refused(http, body, said):
    refused = await ask(http, STORE, body, headers=JSON)
    assert (refused.status, refused.json["code"]) == (400, "invalid_argument")
    reason = details_of(refused.json)["google.rpc.ErrorInfo"]["reason"]
    assert reason == "ERROR_REASON_MALFORMED_MESSAGE"
    assert said == "MALFORMED" or said in refused.json["message"]


async def test_reads_are_made_by_get(http):
    await call(http, "StoreMemory", FACT)
    message = quote(json.dumps({"sessionId": "s"}))
    found = await get(http, f"{LIST}?connect=v1&encoding=json&message={message}")
    assert [one["content"] for one in found.json["memories"]] == ["prefers e-mail"]
    wire = pb.ListMemoriesRequest(session_id="s").SerializeToString()
    for packed, more in ((wire, ""), (gzip.compress(wire), "&compression=gzip")):
        text = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
        target = f"{LIST}?connect=v1&encoding=proto&base64=1&message={text}{more}"
        answer = await get(http, target)
        assert answer.headers["content-type"] == "application/proto"
        assert len(pb.ListMemoriesResponse.FromString(answer.body).memories) == 1


async def test_nothing_is_changed_by_get(http):
    message = quote(json.dumps(FACT))
    refused = await get(http, f"{STORE}?connect=v1&encoding=json&message={message}")
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    assert not (await call(http, "ListMemories", {"sessionId": "s"})).json.get("memories")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (STORE, {}),
        (STORE, {"content-type": "text/plain"}),
        (STORE, CONNECT_JSON),
        (EXPORT, JSON),
        (STORE, {"content-type": "application/grpc-web+json"}),
        (STORE, {"content-type": "application/x-www-form-urlencoded"}),
    ],
)
async def test_another_content_type_is_refused_with_those_that_are_taken(http, path, headers):
    refused = await ask(http, path, json.dumps(FACT).encode(), headers=headers)
    assert refused.status == 415
    assert "json" in refused.headers["accept-post"]


async def test_an_unknown_method_is_refused_as_over_grpc(http):
    refused = await call(http, "/memoryd.v1.MemoryService/Forget", {})
    assert (refused.status, refused.json["code"]) == (404, "unimplemented")


@pytest.mark.parametrize("path", ["/x", "/a/b/c", "/index.html", "/%ff/%ff", "/../etc"])
async def test_whatever_is_not_there_is_a_404_of_json(http, path):
    absent = await get(http, path)
    assert (absent.status, absent.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "CONNECT"])
@pytest.mark.parametrize(
    "target",
    ["*", "x", "localhost:1", "//", "//livez", "//sessions", "http://localhost/livez", "?x"],
)
async def test_what_is_no_path_is_not_there(http, method, target, caplog):
    host, _, port = http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "not_found"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("path", "allowed"), [(LIST, "GET, POST"), (STORE, "POST"), (WATCH, "POST")]
)
@pytest.mark.parametrize("method", ["HEAD", "PUT", "OPTIONS"])
async def test_a_method_says_how_it_is_called(http, path, allowed, method):
    refused = await ask(http, path, headers=JSON, method=method)
    assert (refused.status, refused.headers["allow"]) == (405, allowed)


# What is said to be base64


NO_BASE64 = [b"***", b"!!!!", b"\xff"]


@pytest.mark.parametrize("text", NO_BASE64)
async def test_a_body_that_is_no_base64_is_refused(http, text):
    whole = base64.b64encode(framed(STORED.SerializeToString()))
    for body in (text, text + whole, whole + text):
        await _is_refused_as_text(http, STORE, body)


async def test_frames_that_are_encoded_each_by_itself_are_refused_not_dropped(http):
    requests = [
        pb.StreamStoreMemoriesRequest(requests=[pb.StoreMemoryRequest(session_id="s", content=one)])
        for one in ("a", "bb", "ccc")
    ]
    parts = [base64.b64encode(framed(one.SerializeToString())) for one in requests]
    assert any(part.endswith(b"=") for part in parts[:-1])
    path = "/memoryd.v1.MemoryService/StreamStoreMemories"
    await _is_refused_as_text(http, path, b"".join(parts))
    whole = base64.encodebytes(b"".join(framed(one.SerializeToString()) for one in requests))
    assert (await ask(http, path, whole, headers=GRPC_WEB_TEXT)).status == 200
    found = await call(http, "ListMemories", {"sessionId": "s"})
    assert [one["content"] for one in found.json["memories"]] == ["a", "bb", "ccc"]


async def _is_refused_as_text(http, path, body):
    refused = await ask(http, path, body, headers=GRPC_WEB_TEXT)
    end = b"".join(map(base64.b64decode, re.findall(rb"[^=]+=*", refused.body)))
    assert b"grpc-status: 3\r\n" in end
    assert b"base64" in end
    assert not (await call(http, "ListMemories", {"sessionId": "s"})).json.get("memories")


@pytest.mark.parametrize("text", NO_BASE64[:-1])
async def test_an_address_that_has_no_base64_is_refused(http, text):
    message = quote(text + base64.urlsafe_b64encode(b'{"sessionId": "s"}'), safe="")
    for encoding in ("json", "proto"):
        target = f"{LIST}?connect=v1&encoding={encoding}&base64=1&message={message}"
        refused = await get(http, target)
        assert (refused.status, refused.json["code"]) == (400, "invalid_argument")
        assert "base64" in refused.json["message"]


# Compression and size


async def test_both_ways_may_be_compressed(http):
    much = {"sessionId": "s", "content": "word " * 2_000}
    packed = gzip.compress(json.dumps(much).encode())
    both = JSON | {"content-encoding": "gzip", "accept-encoding": "br, gzip"}
    stored = await ask(http, STORE, packed, headers=both)
    assert stored.headers["content-encoding"] == "gzip"
    assert len(stored.body) < 2_000
    found = json.loads(gzip.decompress(stored.body))
    assert found["memory"]["content"] == much["content"].strip()
    refused = await ask(http, STORE, packed, headers=JSON | {"content-encoding": "br"})
    assert (refused.status, refused.json["code"]) == (501, "unimplemented")
    refused = await ask(http, STORE, b"{}", headers=JSON | {"content-encoding": "gzip"})
    assert (refused.status, refused.json["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("takes", "gets"),
    [("GZIP", "gzip"), ("br;q=1, gzip;q=0.5", "gzip"), ("gzip;q=0", ""), ("gzip; q=0.000", "")],
)
async def test_an_answer_is_compressed_as_its_caller_takes_it(http, takes, gets):
    much = json.dumps({"sessionId": "s", "content": "word " * 2_000}).encode()
    stored = await ask(http, STORE, much, headers=JSON | {"accept-encoding": takes})
    assert stored.headers.get("content-encoding", "") == gets


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_message_over_the_limit_is_refused(http, is_compressed):
    body = json.dumps({"sessionId": "s", "content": "x" * 5 * 2**20}).encode()
    headers = JSON | ({"content-encoding": "gzip"} if is_compressed else {})
    if is_compressed:
        body = gzip.compress(body)
    refused = await ask(http, STORE, body, headers=headers)
    assert (refused.status, refused.json["code"]) == (429, "resource_exhausted")


@pytest.mark.parametrize(
    "headers", [JSON, PROTO, JSON | {"content-encoding": "gzip"}, GRPC_WEB_TEXT]
)
async def test_a_body_that_is_said_to_be_too_large_is_not_asked_for(http, headers):
    given = headers | {"content-length": str(10**9), "expect": "100-continue"}
    async with exchange(http, STORE, None, given) as found:
        await found.begin()
        body = b"".join([chunk async for chunk in found.chunks()])
    said = base64.b64decode(body) if headers is GRPC_WEB_TEXT else body
    assert b"1,000,000,000 bytes" in said
    assert (found.status, b"resource_exhausted" in said) in {(429, True), (200, False)}


# Deadlines


@pytest.mark.parametrize("name", ["connect-timeout-ms", "grpc-timeout"])
async def test_a_deadline_ends_a_call(http, running, name):
    given = {"connect-timeout-ms": "200", "grpc-timeout": "200m"}[name]
    request = framed(json.dumps({"sessionId": "s"}).encode())
    async with exchange(http, WATCH, request, CONNECT_JSON | {name: given}) as found:
        frames = [frame async for frame in found.frames()]
    assert json.loads(frames[-1][1])["error"]["code"] == "deadline_exceeded"
    assert running.server.watchers == 0
    refused = await call(http, "ListMemories", {"sessionId": "s"}, **{name: "soon"})
    assert (refused.status, refused.json["code"]) == (400, "invalid_argument")


# Streams


@pytest.mark.parametrize("headers", [CONNECT_JSON, CONNECT_PROTO, GRPC_WEB])
async def test_a_stream_answers_frame_by_frame(http, memory, headers):
    for number in range(3):
        await memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content=f"fact {number}"))
    is_json = headers is CONNECT_JSON
    request = pb.ExportMemoriesRequest(session_id="s").SerializeToString()
    body = framed(b'{"sessionId": "s"}' if is_json else request)
    async with exchange(http, EXPORT, body, headers) as found:
        assert found.headers["content-type"] == headers["content-type"]
        *answers, (flags, end) = [frame async for frame in found.frames()]
    if is_json:
        contents = [json.loads(data)["content"] for _, data in answers]
    else:
        contents = [pb.Memory.FromString(data).content for _, data in answers]
    assert contents == ["fact 0", "fact 1", "fact 2"]
    if headers is GRPC_WEB:
        assert flags == 0x80
        assert b"grpc-status: 0\r\n" in end
    else:
        assert flags == 2
        assert "error" not in json.loads(end)


async def test_a_watch_is_live_and_ends_with_its_caller(http, memory, running, eventually):
    request = framed(json.dumps({"sessionId": "s"}).encode())
    async with exchange(http, WATCH, request, CONNECT_JSON) as found:
        frames = found.frames()
        for number in range(3):
            content = f"fact {number}"
            await memory.StoreMemory(pb.StoreMemoryRequest(session_id="s", content=content))
            _, data = await anext(frames)
            assert json.loads(data)["memory"]["content"] == content
        assert running.server.watchers == 1

    async def is_over() -> bool:
        return running.server.watchers == 0

    await eventually(is_over)


async def test_a_stopping_server_ends_a_watch_with_a_reason(serve):
    running = await serve()
    request = framed(json.dumps({"sessionId": "s"}).encode())
    async with exchange(running.server.http_address, WATCH, request, CONNECT_JSON) as found:
        stopping = asyncio.create_task(running.server.stop())
        frames = [frame async for frame in found.frames()]
        await stopping
    assert json.loads(frames[-1][1])["error"]["code"] == "unavailable"


async def test_a_stream_of_requests_is_answered_one_by_one(http):
    messages = [{"requests": [{"sessionId": "s", "content": f"fact {n}"}]} for n in range(3)]
    body = b"".join(framed(json.dumps(one).encode()) for one in messages)
    path = "/memoryd.v1.MemoryService/StreamStoreMemories"
    async with exchange(http, path, body, CONNECT_JSON) as found:
        *answers, (flags, end) = [frame async for frame in found.frames()]
    assert (flags, json.loads(end).get("error")) == (2, None)
    assert len(answers) == 3


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", framed(b"{}")[:-1], framed(b"{}", 1), b"\xff" * 9, framed(b"{" * 9)],
)
@pytest.mark.parametrize("headers", [CONNECT_JSON, GRPC_WEB])
async def test_a_stream_that_is_no_request_is_refused(http, body, headers):
    async with exchange(http, EXPORT, body, headers) as found:
        assert found.status == 200
        *answers, (flags, end) = [frame async for frame in found.frames()]
    assert not answers
    if headers is GRPC_WEB:
        assert flags == 0x80
        assert b"grpc-status: 0\r\n" not in end
    else:
        assert json.loads(end)["error"]["code"] in {"invalid_argument", "resource_exhausted"}


# gRPC-Web


@pytest.mark.parametrize("headers", [GRPC_WEB, GRPC_WEB_TEXT])
async def test_grpc_web_has_its_status_in_a_last_frame(http, headers):
    is_text = headers is GRPC_WEB_TEXT

    async def answers_to(message: pb.StoreMemoryRequest) -> list[tuple[int, bytes]]:
        body = framed(message.SerializeToString())
        found = await ask(http, STORE, base64.b64encode(body) if is_text else body, headers=headers)
        assert found.status == 200
        data = found.body
        if is_text:  # each frame is encoded by itself
            data = b"".join(map(base64.b64decode, re.findall(rb"[^=]+=*", data)))
        frames = []
        while data:
            length = int.from_bytes(data[1:5], "big")
            frames.append((data[0], data[5 : 5 + length]))
            data = data[5 + length :]
        return frames

    (_, answer), (flags, end) = await answers_to(STORED)
    assert pb.StoreMemoryResponse.FromString(answer).memory.content == "prefers e-mail"
    assert (flags, end.splitlines()[0]) == (0x80, b"grpc-status: 0")
    ((flags, end),) = await answers_to(pb.StoreMemoryRequest())
    assert flags == 0x80
    assert b"grpc-status: 3\r\n" in end
    assert b"grpc-message: " in end
    assert b"grpc-status-details-bin: " in end


# Who may call


async def test_another_host_is_refused(serve):
    running = await serve(MEMORYD_HTTP_ALLOWED_HOSTS="memoryd.internal")
    http = running.server.http_address
    for host, status in (
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("memoryd.internal:8080", 200),
        ("LOCALHOST", 200),
        ("[::1]:1", 200),
        ("127.0.0.1", 200),
    ):
        answer = await call(http, "ListMemories", {"sessionId": "s"}, host=host)
        assert answer.status == status, host
        assert (await get(http, "/livez", headers={"host": host})).status == 200


async def test_pages_of_other_origins_may_not_call(http):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = await ask(http, STORE, method="OPTIONS", headers=asked)
    assert answer.status == 405
    assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_origins_that_are_named_may_call(serve):
    running = await serve(MEMORYD_HTTP_ALLOWED_ORIGINS="https://app.example")
    http = running.server.http_address
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, authorization, connect-timeout-ms",
    }
    allowed = await ask(
        http, STORE, method="OPTIONS", headers=asked | {"origin": "https://app.example"}
    )
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    other = await ask(
        http, STORE, method="OPTIONS", headers=asked | {"origin": "https://evil.example"}
    )
    assert "access-control-allow-origin" not in other.headers
    stored = await call(http, "StoreMemory", FACT, origin="https://app.example")
    shown = stored.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "trailer-x-request-id", "grpc-status"} <= {*shown}


# Probes


async def test_probes_tell_whether_it_serves(http, running):
    assert (await get(http, "/livez")).json == {"status": "SERVING"}
    assert (await get(http, "/readyz")).json == {"status": "SERVING"}
    assert (await get(http, "/readyz?full")).status == 200
    assert (await ask(http, "/readyz", b"", method="POST")).status == 405
    await running.server.health.stop()
    ready = await get(http, "/readyz")
    assert (ready.status, ready.json["status"]) == (503, "NOT_SERVING")
    assert ready.json["reason"] == "the server stops"
    assert (await get(http, "/livez")).status == 200


# Flags


async def test_flags_are_asked_for_and_watched_in_json(http, tools):
    path = f"/{flags.v1.DESCRIPTOR.services_by_name['Service'].full_name}"
    asked = {"flagKey": "rag.search_k", "context": {"targetingKey": "ada", "a": [1, {}]}}
    found = await call(http, f"{path}/ResolveInt", asked)
    assert found.json == {
        "value": "5",
        "reason": "STATIC",
        "variant": "DEFAULT",
        "metadata": {"revision": 0},
    }
    refused = await call(http, f"{path}/ResolveInt", {"flagKey": "rag.search"})
    assert (refused.status, refused.json["code"]) == (404, "not_found")
    async with exchange(http, f"{path}/EventStream", framed(b"{}"), CONNECT_JSON) as stream:
        frames = stream.frames()
        events = [json.loads((await anext(frames))[1]) for _ in range(2)]
        assert [event["type"] for event in events] == ["configuration_change", "provider_ready"]
        config = tool_pb.ToolConfig(tool="rag", rag={"search_k": 6})
        await tools.UpdateToolConfig(tool_pb.UpdateToolConfigRequest(tool_config=config))
        changed = json.loads((await anext(frames))[1])["data"]["flags"]
    assert changed.keys() == {"rag", "rag.search_k"}


# Its description


async def test_every_call_that_is_no_stream_is_described(http):
    described = (await get(http, "/openapi.json")).json
    methods = {
        f"/{service}/{method.name}": method
        for service in SERVICES
        for method in descriptor_pool.Default().FindServiceByName(service).methods
        if not method.client_streaming and not method.server_streaming
    }
    assert described["paths"].keys() == methods.keys()
    names = described["components"]["schemas"].keys()
    referred = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(described)))
    assert referred <= names
    for path, method in methods.items():
        called = described["paths"][path]["post"]
        schema = called["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert schema.endswith(f"/{method.input_type.full_name}")
        assert called["description"], path


async def test_requests_and_answers_are_as_they_are_described(http):
    described = (await get(http, "/openapi.json")).json

    def check(message: str, value: object) -> None:
        schema = described["components"]["schemas"][message]
        kind = {**schema, "components": described["components"], "additionalProperties": False}
        jsonschema.Draft202012Validator(kind).validate(value)

    metadata = {"a": [1, None, {"b": "c"}]}
    full = FACT | {"metadata": metadata, "tags": ["x"], "importance": 0.5, "ttl": "60.5s"}
    check("memoryd.v1.StoreMemoryRequest", full)
    check("memoryd.v1.StoreMemoryResponse", (await call(http, "StoreMemory", full)).json)
    for wrong in ({"importance": "much"}, {"ttl": 60}, {"session": "s"}, {"tags": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            check("memoryd.v1.StoreMemoryRequest", full | wrong)
    asked = {"sessionId": "s", "query": "how to reach them"}
    check("memoryd.v1.RetrieveMemoriesRequest", asked)
    answer = (await call(http, "RetrieveMemories", asked)).json
    assert answer["results"]
    check("memoryd.v1.RetrieveMemoriesResponse", answer)
    tools = "/memoryd.v1.ToolConfigService/GetToolConfig"
    check("memoryd.v1.ToolConfig", (await call(http, tools, {"tool": "rag"})).json)
    check("Error", (await call(http, "StoreMemory", {})).json)


# Strangers


async def test_a_connection_that_sends_no_head_is_closed(serve, monkeypatch):
    monkeypatch.setattr(endpoint, "HEAD_SECONDS", 0.2)
    running = await serve()
    host, _, port = running.server.http_address.rpartition(":")
    for beginning in (b"", b"POST / HT", b"GET /livez HTTP/1.1\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(beginning)
        assert await reader.read() == b""  # it is closed
        writer.close()


async def test_an_idle_connection_is_closed_and_a_used_one_kept(serve, monkeypatch):
    monkeypatch.setattr(endpoint, "IDLE_SECONDS", 2.0)
    running = await serve()
    host, _, port = running.server.http_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(3):  # longer in all than it may idle
        writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"SERVING" in await reader.readuntil(b"}")
        await asyncio.sleep(0.8)
    # What is asked at once is answered in order.
    writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3)
    rest = await reader.read()
    assert rest.count(b"SERVING") == 3
    writer.close()


async def test_beyond_so_many_connections_none_is_taken(running, http):
    running.server._http._most_connections = 2  # noqa: SLF001  a thousand would take long
    host, _, port = http.rpartition(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    held[0][1].write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await held[0][0].readuntil(b"}")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    for _, each in (*held, (reader, writer)):
        each.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        b"\0" * 1000,
    ],
)
async def test_bytes_that_are_no_request_end_their_connection_alone(http, sent):
    host, _, port = http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(100), 30)
    writer.close()
    assert (await get(http, "/livez")).status == 200


async def test_a_body_that_does_not_come_is_not_waited_for(serve):
    running = await serve(MEMORYD_REQUEST_SECONDS="0.3")
    headers = JSON | {"content-length": "100"}
    async with exchange(running.server.http_address, STORE, None, headers) as found:
        await found.send(h11.Data(data=b"{"))
        await found.begin()
        body = b"".join([chunk async for chunk in found.chunks()])
    assert (found.status, json.loads(body)["code"]) == (504, "deadline_exceeded")


async def test_a_caller_that_goes_while_it_sends_leaves_nothing(http, running, eventually):
    headers = JSON | {"content-length": "100"}
    for _ in range(10):
        async with exchange(http, STORE, None, headers) as found:
            await found.send(h11.Data(data=b"{"))

    async def is_over() -> bool:
        return not running.server._http._state.tasks  # noqa: SLF001  not visible otherwise

    await eventually(is_over)


# Where it is off


async def test_where_it_is_off_nothing_listens(serve):
    running = await serve(MEMORYD_HTTP_PORT="off")
    assert running.server.http_address is None


@pytest.mark.parametrize("port", ["0", "off"])
def test_where_it_is_off_none_of_it_is_loaded(command_line, port):
    server = command_line.serve(MEMORYD_HTTP_PORT=port, PYTHONPROFILEIMPORTTIME="1")
    server.address()
    assert ("memoryd http on" in server.output) == (port == "0")
    loaded = set(re.findall(r"\| +(\w+)[\w.]*$", server.log, re.MULTILINE))
    assert loaded & {"uvicorn", "h11"} == ({"uvicorn", "h11"} if port == "0" else set())
    assert not loaded & {"starlette", "mcp", "mcp_types"}  # no page may call, and nobody has
    assert server.stop() == 0


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port that another process listens on, where the one before is free."""
    with contextlib.ExitStack() as held:
        while True:
            other = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = other.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port - 1)):
                break
        yield port


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_where_another_process_has_the_next_port_only_http_is_missing(
    command_line, database_url, workers
):
    """Who upgrades may have another server there, and has not asked for HTTP."""
    with taken_port() as taken:
        variables = {"MEMORYD_PORT": str(taken - 1), "MEMORYD_HTTP_PORT": ""}
        server = command_line.serve(
            "--workers", workers, MEMORYD_DATABASE_URL=database_url, **variables
        )
        server.address()
        assert "memoryd http on" not in server.output
        warning = f"HTTP is not served: cannot listen on 127.0.0.1:{taken}"
        assert server.log.count(warning) == 1
        assert "set MEMORYD_HTTP_PORT to a free port, or to off" in server.log
        assert server.stop() == 0


def test_the_line_that_says_where_it_is_served_is_true(command_line):
    server = command_line.serve()
    server.address()
    line = next(one for one in server.output.splitlines() if one.startswith("memoryd http on "))
    address = line.removeprefix("memoryd http on http://")
    port = address.rpartition(":")[2]
    assert asyncio.run(get(address, "/livez")).status == 200
    own = {"MEMORYD_DATABASE_URL": "sqlite+aiosqlite:///another.db", "MEMORYD_PORT": "0"}
    taken = command_line.run("serve", **own, MEMORYD_HTTP_PORT=port)
    assert taken.returncode == 1
    assert "HTTP" in taken.stderr
    assert server.stop() == 0


async def test_the_commands_of_its_document_print_what_it_says(http):
    """Without curl, which not every machine has."""
    document = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    (session,) = re.findall(r"```console\n(.*?)```", document, re.DOTALL)
    commands = re.findall(
        r"\$ curl -s -H 'content-type: application/json' -d '(.*)' http://localhost:50052(\S+)"
        r" \| grep -o '(.*)'\n(.*)\n",
        session,
    )
    assert len(commands) == session.count("$ ")
    for data, path, pattern, printed in commands:
        answer = await ask(http, path, data.encode(), headers=JSON)
        assert re.search(pattern, answer.body.decode())[0] == printed
