"""What clients show: keys, tokens that are renewed in time, and nothing in plaintext to others."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from memoryd import client
from memoryd.client import MemoryClient, ToolConfigClient, open_channel, sync
from memoryd.client.connection import is_local
from memoryd.client.credentials import RENEWAL_SHARE, Tokens
from memoryd.v1 import memory_pb2 as pb
from memoryd.v1.memory_pb2_grpc import MemoryServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_SECONDS = 30
KEY = "mdk_canary0secret"
ELSEWHERE = "memoryd.example:50051"


class Service(grpc.GenericRpcHandler):
    """Answers calls, and refuses the credentials that it is told to."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, ...]] = []
        """The authorizations of each call."""
        self.refused: dict[str, str] = {}
        """Reasons by authorization."""
        self.ends_streams = ""
        """The reason by which a watch ends after its first answer."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = (details.method or "").rpartition("/")[2]
        if method == "WatchMemories":
            return grpc.unary_stream_rpc_method_handler(self._watch, None, None)
        if method == "StreamStoreMemories":
            return grpc.stream_stream_rpc_method_handler(self._store_stream, None, None)
        return grpc.unary_unary_rpc_method_handler(self._call, None, None)

    async def _admit(self, context: Any) -> None:
        shown = tuple(v for k, v in context.invocation_metadata() if k == "authorization")
        self.shown.append(shown)
        reason = self.refused.get(shown[0] if shown else "")
        if reason:
            await refuse(context, reason)

    async def _call(self, request: bytes, context: Any) -> bytes:
        del request
        await self._admit(context)
        return b""

    async def _watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        del request
        await self._admit(context)
        yield pb.WatchMemoriesResponse(revision=1).SerializeToString()
        if self.ends_streams:
            await refuse(context, self.ends_streams)

    async def _store_stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        await self._admit(context)
        await context.send_initial_metadata(())  # as the service does at once
        async for data in requests:
            asked = pb.StreamStoreMemoriesRequest.FromString(data)
            memory = pb.Memory(content="stored")
            result = pb.StoreMemoryResult(response=pb.StoreMemoryResponse(memory=memory))
            answer = pb.StreamStoreMemoriesResponse(results=[result] * len(asked.requests))
            yield answer.SerializeToString()


async def refuse(context: Any, reason: str) -> None:
    detail = Packed()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="memoryd"))
    code = grpc.StatusCode.UNAUTHENTICATED
    status = status_pb2.Status(code=code.value[0], message="refused", details=[detail])
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(code, "refused", (trailer,))


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, str]]:
    """A scripted service, and its address."""
    handler = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield handler, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch) -> None:
    for name in ("MEMORYD_TARGET", "MEMORYD_API_KEY"):
        monkeypatch.delenv(name, raising=False)


class Provider:
    """Gives `token-1`, `token-2` and so on, and counts."""

    def __init__(self, life: float = 1000.0) -> None:
        self.life = life
        self.asked = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self) -> tuple[str, float]:
        self.asked += 1
        number = self.asked
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return f"token-{number}", time.time() + self.life


def bearer(number: int) -> tuple[str, ...]:
    return (f"Bearer token-{number}",)


# API keys


async def test_every_kind_of_call_shows_the_key(service):
    handler, address = service
    async with MemoryClient(address, api_key=KEY) as memory:
        await memory.erase("s")
        await asyncio.gather(*(memory.store("s", f"fact {n}") for n in range(5)))
        async for _ in memory.watch("s"):
            break
    async with ToolConfigClient(address, api_key=KEY) as tools:
        await tools.list_tools()
    async with open_channel(address, api_key=KEY) as channel:
        await MemoryClient(channel=channel).erase("s")
        await ToolConfigClient(channel=channel).list_tools()
        await MemoryServiceStub(channel).GetMemory(pb.GetMemoryRequest())
    assert len(handler.shown) >= 8
    assert set(handler.shown) == {(f"Bearer {KEY}",)}


async def test_the_environment_names_target_and_key(service, monkeypatch):
    handler, address = service
    monkeypatch.setenv("MEMORYD_TARGET", address)
    monkeypatch.setenv("MEMORYD_API_KEY", f"{KEY}\n")
    async with MemoryClient() as memory, ToolConfigClient() as tools, open_channel() as channel:
        await memory.erase("s")
        await tools.list_tools()
        await MemoryClient(channel=channel).erase("s")
    assert handler.shown == [(f"Bearer {KEY}",)] * 3


async def test_arguments_go_before_the_environment(service, monkeypatch):
    handler, address = service
    monkeypatch.setenv("MEMORYD_TARGET", ELSEWHERE)
    monkeypatch.setenv("MEMORYD_API_KEY", "mdk_other")
    for named in (
        {"api_key": "mdk_mine"},
        {"token_provider": Provider()},
        {"metadata": {"authorization": "Bearer own"}},
    ):
        async with MemoryClient(address, **named) as memory:
            await memory.erase("s")
    assert handler.shown == [("Bearer mdk_mine",), bearer(1), ("Bearer own",)]


@pytest.mark.parametrize(
    "target", ["", " ", "http://localhost:1", "https://a.example", "GRPC://a:1"]
)
async def test_a_target_is_no_url(target, monkeypatch):
    for kind in (MemoryClient, sync.MemoryClient):
        with pytest.raises(ValueError, match="target: give HOST:PORT"):
            kind(target)
    if target.strip():
        monkeypatch.setenv("MEMORYD_TARGET", target)
        with pytest.raises(ValueError, match="MEMORYD_TARGET: give HOST:PORT"):
            MemoryClient()


async def test_without_a_target_there_is_no_channel():
    with pytest.raises(ValueError, match="target: give HOST:PORT, or set MEMORYD_TARGET"):
        open_channel()


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ümlaut", "k" * 4090])
async def test_what_is_no_key_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match=r"^api_key: ") as caught:
        MemoryClient("localhost:1", api_key=key)
    assert not key or key not in str(caught.value)


# Plaintext

LOCAL = (
    *("localhost:1", "LOCALHOST:1", "localhost.:1", "localhost", "127.0.0.1:1", "127.9.8.7:1"),
    *("[::1]:1", "::1", "[::ffff:127.0.0.1]:1", "dns:localhost:1", "dns:///127.0.0.1:1"),
    *("ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1", "unix:/run/memoryd.sock", "unix:memoryd"),
    "unix-abstract:memoryd",
)
REMOTE = (
    *(ELSEWHERE, "10.0.0.1:1", "0.0.0.0:1", "[::]:1", "[fe80::1]:1", "128.0.0.1:1", "localhost.a"),
    *("ipv4:127.0.0.1:1,10.0.0.1:2", "dns://10.0.0.1/localhost:1", "dns:///memoryd.example:1"),
    *("xds:///localhost", "passthrough:///127.0.0.1:1", "127.0.0.1.example:1", "notlocalhost:1"),
    "127.1:1",
)


@pytest.mark.parametrize("target", LOCAL)
async def test_a_secret_may_go_to_this_machine(target):
    assert is_local(target)
    await MemoryClient(target, api_key=KEY).close()


SECRETS: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": KEY},
    "token_provider": {"token_provider": Provider},
    "metadata.authorization": {"metadata": {"Authorization": f"Bearer {KEY}"}},
}


@pytest.mark.parametrize("target", REMOTE)
async def test_a_secret_does_not_go_to_another_machine_in_plaintext(target):
    for name, secret in SECRETS.items():
        with pytest.raises(ValueError, match=f"^{name}: would go to another machine") as caught:
            MemoryClient(target, **secret)
        assert "allow_plaintext_credentials=True" in str(caught.value)
        assert KEY not in str(caught.value)


async def test_what_allows_a_secret_to_another_machine(monkeypatch):
    for secret in SECRETS.values():
        for way in (
            {"tls": True},
            {"tls": client.TLS()},
            {"credentials": grpc.ssl_channel_credentials()},
            {"allow_plaintext_credentials": True},
        ):
            await ToolConfigClient(ELSEWHERE, **secret, **way).close()
    await MemoryClient(ELSEWHERE).close()  # without a secret
    await MemoryClient(ELSEWHERE, tls=False).close()
    monkeypatch.setenv("MEMORYD_API_KEY", KEY)
    with pytest.raises(ValueError, match=r"^MEMORYD_API_KEY: would go to another machine"):
        open_channel(ELSEWHERE, tls=False)


async def test_a_proxy_gets_no_secret(service, monkeypatch):
    _, address = service
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with MemoryClient(address, api_key=KEY, timeout=TIMEOUT_SECONDS) as memory:
        await memory.erase("s")


async def test_arguments_that_contradict_each_other():
    ssl_credentials = grpc.ssl_channel_credentials()
    for named in (
        {"api_key": KEY, "token_provider": Provider()},
        {"api_key": KEY, "metadata": {"authorization": "Bearer own"}},
        {"token_provider": Provider(), "metadata": {"authorization": "Bearer own"}},
        {"tls": True, "credentials": ssl_credentials},
    ):
        with pytest.raises(ValueError, match="give one of them"):
            MemoryClient("localhost:1", **named)
    async with open_channel("localhost:1", api_key=KEY) as channel:
        for named in (
            {"api_key": KEY},
            {"api_key": ""},
            {"token_provider": Provider()},
            {"tls": True},
            {"tls": client.TLS()},
            {"allow_plaintext_credentials": True},
        ):
            with pytest.raises(ValueError, match="or a channel alone"):
                MemoryClient(channel=channel, **named)
        with pytest.raises(ValueError, match=r"^metadata\.authorization: "):
            MemoryClient(channel=channel, metadata={"authorization": "Bearer own"})


# Tokens


async def test_a_token_is_asked_for_once(service):
    handler, address = service
    provider = Provider()
    async with MemoryClient(address, token_provider=provider) as memory:
        await asyncio.gather(*(memory.erase("s") for _ in range(20)))
        await asyncio.gather(*(memory.store("s", f"fact {n}") for n in range(5)))
        async for _ in memory.watch("s"):
            break
    assert provider.asked == 1
    assert set(handler.shown) == {bearer(1)}


async def test_clients_of_a_channel_share_a_token(service):
    handler, address = service
    provider = Provider()
    async with open_channel(address, token_provider=provider) as channel:
        await MemoryClient(channel=channel).erase("s")
        await ToolConfigClient(channel=channel).list_tools()
    assert (provider.asked, handler.shown) == (1, [bearer(1)] * 2)


@pytest.mark.parametrize(
    ("expiry", "asked"),
    [
        (None, 1),
        (datetime.now(UTC) + timedelta(hours=1), 1),
        (time.time() + 3600, 1),
        (int(time.time()) - 10, 3),  # by a clock that is behind: of use, and asked for each time
    ],
    ids=["never", "datetime", "seconds", "past"],
)
async def test_when_a_token_expires_is_told_in_several_ways(service, expiry, asked):
    handler, address = service
    count = 0

    async def provide() -> tuple[str, Any]:
        nonlocal count
        count += 1
        return "token", expiry

    async with MemoryClient(address, token_provider=provide) as memory:
        for _ in range(3):
            await memory.erase("s")
    assert (count, handler.shown) == (asked, [("Bearer token",)] * 3)


class Moved:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def test_a_token_is_renewed_at_four_fifths_of_its_life():
    clock, provider = Moved(), Provider()
    tokens = Tokens(provider, clock)

    async def number_now() -> str:
        await asyncio.gather(*(tokens.ready() for _ in range(5)))
        return tokens.pairs[0][1]

    assert await number_now() == "Bearer token-1"
    life = provider.life + (time.time() - clock.now)
    clock.now += RENEWAL_SHARE * life - 10
    assert await number_now() == "Bearer token-1"
    clock.now += 20
    assert await number_now() == "Bearer token-2"
    assert provider.asked == 2


async def test_while_a_token_is_valid_a_provider_may_fail(caplog):
    clock, provider = Moved(), Provider()
    tokens = Tokens(provider, clock)
    await tokens.ready()
    provider.error = OSError(KEY)
    clock.now += provider.life * 0.9
    for _ in range(3):
        await tokens.ready()
        assert tokens.pairs[0][1] == "Bearer token-1"
    assert provider.asked == 2  # after a failure not at once
    clock.now += provider.life
    with pytest.raises(OSError, match=KEY):  # the provider's own
        await tokens.ready()
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ["token_provider failed: OSError"] * 2


async def test_what_a_provider_raises_is_what_the_call_raises(service):
    handler, address = service
    provider = Provider()
    provider.error = TimeoutError("mine")
    async with MemoryClient(address, token_provider=provider) as memory:
        with pytest.raises(TimeoutError, match="mine"):
            await memory.erase("s")
        with pytest.raises(TimeoutError, match="mine"):
            await memory.store("s", "x")
        provider.error = None
        await memory.erase("s")
    assert handler.shown == [bearer(3)]


async def test_a_provider_that_hangs_costs_no_more_than_the_deadline(service):
    handler, address = service
    provider = Provider()
    provider.answers.clear()
    async with MemoryClient(address, token_provider=provider, timeout=0.05) as memory:
        for call in (memory.erase("s"), memory.store("s", "x")):
            with pytest.raises(client.DeadlineExceeded, match="no token in time"):
                await call
        provider.answers.set()
        await memory.erase("s", timeout=TIMEOUT_SECONDS)
    assert (provider.asked, handler.shown) == (1, [bearer(1)])


async def test_to_close_a_client_asks_no_one_any_more(service):
    _, address = service
    provider = Provider()
    provider.answers.clear()
    async with MemoryClient(address, token_provider=provider) as memory:
        erasing = asyncio.create_task(memory.erase("s"))
        while not provider.asked:  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await erasing
    assert "memoryd token" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize(
    "answer",
    [None, "token", ("token",), ("token", "tomorrow"), ("token", datetime(2030, 1, 1)), (1, None)],  # noqa: DTZ001  refused
)
async def test_what_is_no_token_is_refused_and_not_shown(service, answer):
    _, address = service

    async def provide() -> Any:
        return answer

    async with MemoryClient(address, token_provider=provide) as memory:
        with pytest.raises(TypeError, match=r"^token_provider") as caught:
            await memory.erase("s")
    assert "tomorrow" not in str(caught.value)


async def test_a_provider_is_async():
    async with MemoryClient("localhost:1", token_provider=lambda: ("token", None)) as memory:
        with pytest.raises(TypeError, match=r"^token_provider: is no async function"):
            await memory.erase("s")


# Refusals


async def test_a_token_that_is_refused_as_expired_is_renewed_once_for_all(service):
    handler, address = service
    handler.refused = {"Bearer token-1": "CREDENTIAL_EXPIRED"}
    provider = Provider()
    async with MemoryClient(address, token_provider=provider) as memory:
        await asyncio.gather(*(memory.erase("s") for _ in range(20)))
        await memory.erase("s")
        assert provider.asked == 2
        handler.refused["Bearer token-2"] = "CREDENTIAL_EXPIRED"
        changes = [change.revision async for change in memory.watch("s")]
        assert changes == [1]
    assert provider.asked == 3
    assert handler.shown.count(bearer(1)) == 20
    assert handler.shown[-2:] == [bearer(2), bearer(3)]


async def test_stores_at_once_outlive_a_token(service):
    handler, address = service
    provider = Provider()
    async with MemoryClient(address, token_provider=provider) as memory:
        await memory.erase("s")
        handler.refused = {"Bearer token-1": "CREDENTIAL_EXPIRED"}
        await asyncio.gather(*(memory.store("s", f"fact {n}") for n in range(20)))
    assert provider.asked == 2


async def test_a_call_is_repeated_once(service):
    handler, address = service
    handler.refused = {f"Bearer token-{n}": "CREDENTIAL_EXPIRED" for n in range(9)}
    provider = Provider()
    async with MemoryClient(address, token_provider=provider) as memory:
        with pytest.raises(client.Unauthenticated) as caught:
            await memory.erase("s")
        assert caught.value.reason == "CREDENTIAL_EXPIRED"
        assert handler.shown == [bearer(1), bearer(2)]
        with pytest.raises(client.Unauthenticated):
            await anext(memory.watch("s"))
    assert handler.shown == [bearer(1), bearer(2), bearer(2), bearer(3)]


@pytest.mark.parametrize("reason", ["CREDENTIAL_REVOKED", "CREDENTIAL_INVALID"])
async def test_other_refusals_are_not_repeated(service, reason):
    handler, address = service
    handler.refused = {"Bearer token-1": reason}
    async with MemoryClient(address, token_provider=Provider()) as memory:
        with pytest.raises(client.Unauthenticated):
            await memory.erase("s")
    assert handler.shown == [bearer(1)]


async def test_a_key_that_has_expired_is_not_shown_again(service):
    handler, address = service
    handler.refused = {f"Bearer {KEY}": "CREDENTIAL_EXPIRED"}
    async with MemoryClient(address, api_key=KEY) as memory:
        with pytest.raises(client.Unauthenticated) as caught:
            await memory.erase("s")
    assert handler.shown == [(f"Bearer {KEY}",)]
    assert KEY not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)


async def test_a_watch_resumes_with_another_token(service):
    handler, address = service
    handler.ends_streams = "CREDENTIAL_EXPIRED"
    provider = Provider()
    async with MemoryClient(address, token_provider=provider) as memory:
        watching = memory.watch("s")
        assert [(await anext(watching)).revision for _ in range(3)] == [1, 1, 1]
    assert len(handler.shown) == 3


async def test_a_watch_with_a_key_that_has_expired_ends(service):
    handler, address = service
    handler.ends_streams = "CREDENTIAL_EXPIRED"
    async with MemoryClient(address, api_key=KEY) as memory:
        watching = memory.watch("s")
        assert (await anext(watching)).revision == 1
        with pytest.raises(client.Unauthenticated):
            await anext(watching)
    assert len(handler.shown) == 1


# Secrecy


async def test_no_representation_shows_a_secret(service, caplog):
    handler, address = service
    handler.refused = {f"Bearer {KEY}": "CREDENTIAL_INVALID"}
    caplog.set_level(logging.DEBUG)

    async def provide() -> tuple[str, None]:
        return KEY, None

    for named in ({"api_key": KEY}, {"token_provider": provide}):
        async with open_channel(address, **named) as channel:
            memory = MemoryClient(channel=channel)
            with pytest.raises(client.Unauthenticated) as caught:
                await memory.erase("s")
            shown = [memory, channel, caught.value, caught.value.__cause__, *vars(memory).values()]
            shown += [*vars(channel).values(), *vars(channel.credential)]
            assert KEY not in " ".join(map(repr, shown))
            assert KEY not in str(caught.value)
        gc.collect()
    assert KEY not in caplog.text
