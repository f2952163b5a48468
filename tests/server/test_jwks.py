"""Key sets of issuers that change, are away, or answer with what harms."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.issuers import (
    AUDIENCE,
    ISSUER,
    IssuerKey,
    Issuing,
    claims_at,
    key_server,
    key_set,
    starting,
)

from memoryd.access.auth_file import Issuer
from memoryd.access.tokens import Tokens
from memoryd.domain.errors import CredentialInvalid

if TYPE_CHECKING:
    from tests.conftest import Clock

AWAY = "the keys of an issuer cannot be read; those known serve for a day"
NO_KEYS = "an issuer shows no key; its tokens are refused"
BACK = "the keys of an issuer are read again"
PATIENCE = 30.0
"""Seconds until something must have happened."""


@pytest.fixture
async def started():
    """Start tokens, and close them after the test."""
    async with starting() as start:
        yield start


@pytest.fixture
def tokens_of(clock, started):
    """Start tokens whose keys are at a URL or in a file."""

    async def make(place, *, read_seconds: float = PATIENCE) -> Tokens:
        where = {"jwks_url": place} if isinstance(place, str) else {"jwks_file": place}
        row = Issuer(issuer=ISSUER, audience=AUDIENCE, tenant="acme", algorithms=["ES256"], **where)
        return await started(Tokens([row], clock, read_seconds=read_seconds, poll_seconds=0.02))

    return make


async def accepts(tokens: Tokens, token: str) -> bool:
    try:
        await tokens.principal_of(token)
    except CredentialInvalid:
        return False
    return True


async def until(condition) -> None:
    """Wait for a condition, which the tokens bring about by themselves."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  nothing else says when they have
            await asyncio.sleep(0.02)


def told(caplog) -> list[str]:
    """What was logged, with the reasons."""
    return [
        f"{record.getMessage()}: {vars(record)['reason']}"
        if "reason" in vars(record)
        else record.getMessage()
        for record in caplog.records
        if record.name == "memoryd.access.jwks"
    ]


# Over TLS


async def test_keys_are_read_over_tls(tokens_of, clock, tmp_path, monkeypatch, caplog):
    authority, key = Issuing(), IssuerKey()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with key_server(key.jwk(), tls=authority.server_context(tmp_path)) as server:
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, key.sign(claims_at(clock())))
    assert told(caplog) == []


async def test_an_issuer_that_the_system_does_not_trust(tokens_of, clock, tmp_path, caplog):
    key = IssuerKey()
    async with key_server(key.jwk(), tls=Issuing().server_context(tmp_path)) as server:
        tokens = await tokens_of(server.url)
        assert not await accepts(tokens, key.sign(claims_at(clock())))
    (line,) = told(caplog)
    assert line.startswith(f"{AWAY}: its certificate is not trusted")


async def test_another_host_of_a_trusted_authority(tokens_of, clock, tmp_path, monkeypatch, caplog):
    authority, key = Issuing(), IssuerKey()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with key_server(key.jwk(), tls=authority.server_context(tmp_path)) as server:
        tokens = await tokens_of(server.url.replace("127.0.0.1", "localhost"))
        assert not await accepts(tokens, key.sign(claims_at(clock())))
    assert "its certificate is not trusted" in told(caplog)[0]


# Changes


async def test_an_unknown_key_id_has_the_keys_read_at_most_once_a_minute(tokens_of, clock):
    key, renewed = IssuerKey(), IssuerKey(kid="two")
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        server.content = key_set(key.jwk(), renewed.jwk())
        assert await accepts(tokens, renewed.sign(claims_at(clock())))
        assert len(server.requests) == 2
        unknown = [IssuerKey("ES256", f"k{n}", key.private) for n in range(200)]
        for _ in range(3):
            flood = (accepts(tokens, each.sign(claims_at(clock()))) for each in unknown)
            assert not any(await asyncio.gather(*flood))
        assert len(server.requests) == 2
        clock.move(timedelta(seconds=60))
        flood = (accepts(tokens, each.sign(claims_at(clock()))) for each in unknown)
        assert not any(await asyncio.gather(*flood))
        assert len(server.requests) == 3
        assert await accepts(tokens, key.sign(claims_at(clock())))


async def test_one_read_serves_all_who_wait_for_it(tokens_of, clock):
    key, renewed = IssuerKey(), IssuerKey(kid="two")
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def answer(writer) -> None:
            arrived.set()
            await go_on.wait()
            content = key_set(renewed.jwk())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            await writer.drain()

        server.answer = answer
        texts = [renewed.sign(claims_at(clock(), jti=n)) for n in range(20)]
        waiting = [asyncio.create_task(tokens.principal_of(text)) for text in texts]
        await arrived.wait()
        assert await accepts(tokens, key.sign(claims_at(clock())))  # others go on meanwhile
        waiting[0].cancel()  # harms no one else
        await asyncio.gather(waiting[0], return_exceptions=True)
        go_on.set()
        principals = await asyncio.gather(*waiting[1:])
        assert {principal.name for principal in principals} == {"alice"}
        assert len(server.requests) == 2


async def test_keys_are_read_every_five_minutes(tokens_of, clock):
    key, renewed = IssuerKey(), IssuerKey(kid="two")
    token = key.sign(claims_at(clock(), exp=int(clock().timestamp()) + 86_400))
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, token)
        server.content = key_set(renewed.jwk())
        clock.move(timedelta(seconds=299))
        assert tokens.known(token)
        clock.move(timedelta(seconds=1))
        await until(lambda: tokens.known(token) is None)
        assert not await accepts(tokens, token)
        assert await accepts(tokens, renewed.sign(claims_at(clock())))


async def test_a_key_that_stays_keeps_its_tokens(tokens_of, clock):
    key, other = IssuerKey(), IssuerKey(kid="two")
    token, of_other = (
        each.sign(claims_at(clock(), exp=int(clock().timestamp()) + 86_400))
        for each in (key, other)
    )
    async with key_server(key.jwk(), other.jwk()) as server:
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, token)
        assert await accepts(tokens, of_other)
        server.content = key_set(key.jwk(), IssuerKey(kid="three").jwk())
        clock.move(timedelta(minutes=5))
        await until(lambda: tokens.known(of_other) is None)
        assert tokens.known(token)


async def test_an_id_that_another_key_takes_over(tokens_of, clock):
    key, usurper = IssuerKey(), IssuerKey()
    token = key.sign(claims_at(clock()))
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, token)
        server.content = key_set(usurper.jwk())
        clock.move(timedelta(minutes=5))
        await until(lambda: tokens.known(token) is None)
        assert not await accepts(tokens, token)
        assert await accepts(tokens, usurper.sign(claims_at(clock())))


async def test_an_issuer_that_withdraws_all_keys(tokens_of, clock, caplog):
    key = IssuerKey()
    token = key.sign(claims_at(clock()))
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, token)
        server.content = key_set()
        clock.move(timedelta(minutes=5))
        await until(lambda: tokens.known(token) is None)
        assert not await accepts(tokens, token)
    assert told(caplog) == [f"{NO_KEYS}: none of its keys verifies tokens"]


# Away


async def test_an_issuer_that_is_away_at_the_start_and_comes(tokens_of, clock, caplog):
    caplog.set_level(logging.INFO)
    key = IssuerKey()
    async with key_server(key.jwk()) as server:
        server.status = "503 Service Unavailable"
        tokens = await tokens_of(server.url)
        assert not await accepts(tokens, key.sign(claims_at(clock())))
        server.status = "200 OK"
        assert not await accepts(tokens, key.sign(claims_at(clock())))  # not yet looked again
        clock.move(timedelta(minutes=1))
        assert await accepts(tokens, key.sign(claims_at(clock())))
        assert told(caplog) == [f"{AWAY}: it answers with status 503", BACK]


async def test_known_keys_serve_a_day(tokens_of, clock, caplog):
    caplog.set_level(logging.INFO)
    key = IssuerKey()
    token = key.sign(claims_at(clock(), exp=int(clock().timestamp()) + 1_000_000))
    fresh = key.sign(claims_at(clock(), exp=int(clock().timestamp()) + 1_000_000, jti="2"))
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, token)
        server.status = "500 Internal Server Error"
        for _ in range(3):
            clock.move(timedelta(hours=7, minutes=59))
            asked = len(server.requests)
            await until(lambda asked=asked: len(server.requests) > asked)
        assert tokens.known(token)
        assert await accepts(tokens, fresh)
        clock.move(timedelta(minutes=3))
        assert tokens.known(token) is None
        assert tokens.known(fresh) is None
        assert not await accepts(tokens, token)
        server.status = "200 OK"
        clock.move(timedelta(minutes=1))
        assert await accepts(tokens, token)
        assert told(caplog) == [f"{AWAY}: it answers with status 500", BACK]


async def test_a_port_where_nothing_listens(tokens_of, clock, caplog):
    async with key_server() as server:
        url = server.url
    tokens = await tokens_of(url)
    assert not await accepts(tokens, IssuerKey().sign(claims_at(clock())))
    assert told(caplog) == [f"{AWAY}: Connection refused"]


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 64}.invalid", "a..invalid"])
async def test_a_host_that_there_is_not(tokens_of, clock, caplog, host):
    tokens = await tokens_of(f"https://{host}/jwks.json")
    assert not await accepts(tokens, IssuerKey().sign(claims_at(clock())))
    assert len(told(caplog)) == 1


# Answers that harm


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def _nothing(_) -> None:
    await asyncio.sleep(PATIENCE)


def _once(answer: bytes) -> Answer:
    return _endless(answer, b"", times=0)


def _endless(head: bytes, again: bytes, *, pause: float = 0, times: int | None = None) -> Answer:
    """Begin an answer, and send the same bytes again and again."""

    async def answer(writer) -> None:
        writer.write(head)
        for _ in itertools.count() if times is None else range(times):
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
TOO_LONG = "its answer has more than 1,048,576 bytes"
TOO_SLOW = "no answer within 1 s"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(_nothing, TOO_SLOW, id="nothing"),
        pytest.param(
            _endless(OK + b"Content-Length: 100000\r\n\r\n", b" ", pause=0.02), TOO_SLOW, id="drip"
        ),
        pytest.param(_endless(OK + b"X-Slow: ", b"a", pause=0.02), TOO_SLOW, id="header drips"),
        pytest.param(
            _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.001), TOO_SLOW, id="continue"
        ),
        pytest.param(
            _endless(OK + b"Content-Length: 1000000000\r\n\r\n", b" " * 10**6, times=1000),
            TOO_LONG,
            id="gigabyte",
        ),
        pytest.param(
            _endless(
                OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n%b\r\n" % (b" " * 0x10000)
            ),
            TOO_LONG,
            id="endless chunks",
        ),
        pytest.param(_endless(OK + b"\r\n", b" " * 65_536), TOO_LONG, id="endless"),
        pytest.param(_endless(OK, b"X-More: 1\r\n" * 100), "no answer of HTTP", id="headers"),
        pytest.param(_once(b"SSH-2.0-OpenSSH_9.6\r\n" * 99), "no answer of HTTP", id="no HTTP"),
        pytest.param(_once(b""), "", id="closed"),
        pytest.param(
            _once(OK + b'Content-Length: 1000\r\n\r\n{"keys": ['), "no JSON", id="cut short"
        ),
    ],
)
async def test_an_issuer_that_answers_badly_keeps_its_keys_and_stops_no_one(
    tokens_of, clock, caplog, answer, reason
):
    key = IssuerKey()
    token = key.sign(claims_at(clock()))
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url, read_seconds=1)
        server.answer = answer
        turns = 0
        look = asyncio.create_task(accepts(tokens, IssuerKey(kid="other").sign(claims_at(clock()))))
        while not look.done():
            assert await accepts(tokens, token)
            turns += 1
            await asyncio.sleep(0)
        assert not look.result()
        assert turns > 10  # the event loop was free
        (line,) = told(caplog)
        assert line.startswith(f"{AWAY}: {reason}")
        server.answer = None
        clock.move(timedelta(minutes=1))
        await until(lambda: told(caplog)[1:] == [BACK])


@pytest.mark.parametrize(
    ("status", "headers", "content", "reason"),
    [
        ("302 Found", ["Location: {url}moved"], b"", "it redirects (302), which is not followed"),
        ("308 Permanent Redirect", ["Location: {url}moved"], b"", "it redirects (308)"),
        ("204 No Content", [], b"", "it answers with status 204"),
        ("404 Not Found", [], b"{}", "it answers with status 404"),
        ("200 OK", ["Content-Encoding: gzip"], gzip.compress(b" " * 10**7), "compressed"),
        ("200 OK", ["Content-Encoding: br"], b"{}", "compressed"),
        ("200 OK", [], gzip.compress(b" " * 10**7), "no JSON"),
        ("200 OK", [], b"<html>", "no JSON"),
        ("200 OK", [], b"[" * 100_000, "no JSON"),
        ("200 OK", [], b"[]", "no JSON Web Key Set"),
        ("200 OK", [], key_set(*[{"kty": "EC"}] * 101), "more than 100 keys"),
    ],
)
async def test_an_answer_that_is_no_key_set(  # noqa: PLR0917  fixtures and the case
    tokens_of, clock, caplog, status, headers, content, reason
):
    key = IssuerKey()
    async with key_server(key.jwk()) as server:
        tokens = await tokens_of(server.url)
        server.status, server.content = status, content
        server.headers = tuple(header.format(url=server.url) for header in headers)
        assert not await accepts(tokens, IssuerKey(kid="other").sign(claims_at(clock())))
        assert await accepts(tokens, key.sign(claims_at(clock())))
        assert len(server.requests) == 2
        assert reason in told(caplog)[0]


@pytest.mark.parametrize("encoding", ["chunked", "length", "end"])
async def test_ways_to_send_a_key_set(tokens_of, clock, encoding):
    key = IssuerKey()
    content = key_set(key.jwk())
    answers = {
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(content), content),
        "length": b"Content-Length: %d\r\n\r\n%b" % (len(content), content),
        "end": b"\r\n" + content,
    }
    async with key_server() as server:
        server.answer = _once(OK + answers[encoding])
        tokens = await tokens_of(server.url)
        assert await accepts(tokens, key.sign(claims_at(clock())))
        (request,) = server.requests
        assert b"\r\nAccept-Encoding: identity\r\n" in request


async def test_closing_does_not_wait_for_an_issuer(clock: Clock):
    async with key_server() as server:
        server.answer = _nothing
        row = Issuer(issuer=ISSUER, audience=AUDIENCE, tenant="acme", jwks_url=server.url)
        tokens = Tokens([row], clock, read_seconds=10_000)
        starting = asyncio.create_task(tokens.start())
        await until(lambda: server.requests)
        async with asyncio.timeout(PATIENCE):
            await tokens.aclose()
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting


# Files


async def test_a_file_of_keys_is_read_when_it_changes(tokens_of, clock, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    key, renewed, file = IssuerKey(), IssuerKey(kid="two"), tmp_path / "keys.json"
    file.write_bytes(key_set(key.jwk()))
    tokens = await tokens_of(file)
    token = key.sign(claims_at(clock()))
    assert await accepts(tokens, token)

    file.write_bytes(b"{")
    await until(lambda: told(caplog))
    assert tokens.known(token)
    assert told(caplog) == [f"{AWAY}: no JSON"]

    file.unlink()
    (tmp_path / "new.json").write_bytes(key_set(renewed.jwk()))
    (tmp_path / "new.json").rename(file)
    await until(lambda: tokens.known(token) is None)
    assert not await accepts(tokens, token)
    assert await accepts(tokens, renewed.sign(claims_at(clock())))
    assert told(caplog)[1:] == [BACK]


async def test_a_file_of_keys_that_goes_away(tokens_of, clock, tmp_path, caplog):
    key, file = IssuerKey(), tmp_path / "keys.json"
    file.write_bytes(key_set(key.jwk()))
    tokens = await tokens_of(file)
    file.unlink()
    await until(lambda: told(caplog))
    assert told(caplog) == [f"{AWAY}: No such file or directory"]
    assert await accepts(tokens, key.sign(claims_at(clock())))


async def test_a_file_of_keys_that_becomes_a_pipe_keeps_no_one_waiting(
    tokens_of, clock, tmp_path, caplog
):
    key, file = IssuerKey(), tmp_path / "keys.json"
    file.write_bytes(key_set(key.jwk()))
    tokens = await tokens_of(file)
    file.unlink()
    os.mkfifo(file)
    await until(lambda: told(caplog))
    assert told(caplog) == [f"{AWAY}: no regular file"]
    assert not await accepts(tokens, IssuerKey(kid="other").sign(claims_at(clock())))
