"""The client over TLS: whom it trusts, what it shows, and files that are renewed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.authority import Authority, Folder

from memoryd import client
from memoryd.client import TLS, MemoryClient, ToolConfigClient, open_channel
from memoryd.client import tls as client_tls
from memoryd.rpc import tls as server_tls

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS = 30
CALL_SECONDS = 3


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Folder:
    """The client's files."""
    return Folder(tmp_path / "client", authority.issue("agent"), authority.pem)


@pytest.fixture
def always(monkeypatch) -> None:
    """Have client and server look at their files all the time."""
    monkeypatch.setattr(client_tls, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(server_tls, "LOOK_SECONDS", 0.02)


def tls_of(folder: Folder) -> TLS:
    return TLS(ca=folder.client_ca, cert=str(folder.cert), key=folder.key)


async def stored(memory: MemoryClient, content: str = "prefers e-mail") -> str:
    return (await memory.store("s", content, timeout=TIMEOUT_SECONDS)).memory.memory_id


async def test_every_client_speaks_tls(serve, tls_folder, folder):
    running = await serve(**tls_folder.variables)
    tls = TLS(ca=folder.client_ca)
    async with MemoryClient(running.address, tls=tls) as memory:
        await stored(memory)
    async with ToolConfigClient(running.address, tls=tls) as tools:
        assert len((await tools.list_tools()).tools) == 7
    async with open_channel(running.address, tls=tls) as channel:
        assert await MemoryClient(channel=channel).get("s", await stored_over(channel))


async def stored_over(channel) -> str:
    return await stored(MemoryClient(channel=channel))


async def test_a_server_of_an_unknown_ca_is_not_called(serve, tls_folder):
    running = await serve(**tls_folder.variables)
    async with MemoryClient(running.address, tls=True, timeout=CALL_SECONDS) as memory:
        with pytest.raises((client.Unavailable, client.DeadlineExceeded)):
            await memory.erase("s")


async def test_the_name_of_the_server_counts(serve, tls_folder, folder):
    running = await serve(**tls_folder.variables)
    for name, is_right in (("memoryd.test", True), ("other.test", False)):
        tls = TLS(ca=folder.client_ca, server_name=name)
        async with MemoryClient(running.address, tls=tls, timeout=CALL_SECONDS) as memory:
            with contextlib.ExitStack() as expected:
                if not is_right:
                    wrong = (client.Unavailable, client.DeadlineExceeded)
                    expected.enter_context(pytest.raises(wrong))
                await memory.erase("s")


async def test_a_client_shows_its_certificate(serve, closed_tls_folder, folder):
    running = await serve(**closed_tls_folder.variables)
    async with MemoryClient(running.address, tls=tls_of(folder), api_key="mdk_x") as memory:
        await stored(memory)
    tls = TLS(ca=folder.client_ca)
    async with MemoryClient(running.address, tls=tls, timeout=CALL_SECONDS) as memory:
        with pytest.raises((client.Unavailable, client.DeadlineExceeded)):
            await memory.erase("s")


@pytest.mark.usefixtures("always")
async def test_a_renewed_certificate_is_shown(serve, closed_tls_folder, folder, eventually):
    # A connection is soon too old for new calls; what it has goes on.
    running = await serve(MEMORYD_CONNECTION_AGE_SECONDS="1", **closed_tls_folder.variables)
    async with MemoryClient(running.address, tls=tls_of(folder), timeout=CALL_SECONDS) as memory:
        await stored(memory, "before")
        watching = memory.watch("s")
        assert (await anext(watching)).revision == 1
        next_authority = Authority("the next CA")
        closed_tls_folder.client_ca.write_bytes(next_authority.pem)

        async def is_refused() -> bool:
            try:
                await memory.get("s", "x", timeout=1)
            except (client.Unavailable, client.DeadlineExceeded):
                return True
            except client.MemorydError:
                return False
            return False

        await eventually(is_refused)
        folder.write(next_authority.issue("agent"))
        for number in range(3):
            await stored(memory, f"after {number}")
        assert (await asyncio.wait_for(anext(watching), TIMEOUT_SECONDS)).revision == 2
    # To close the client ends the old call, too.
    with pytest.raises(asyncio.CancelledError):
        async for _ in watching:
            pass


@pytest.mark.usefixtures("always")
async def test_renewals_fail_no_call(serve, authority, closed_tls_folder, folder):
    running = await serve(MEMORY_MAX_ENTRIES="1000", **closed_tls_folder.variables)
    stopping = asyncio.Event()

    async def store_again_and_again(memory: MemoryClient, name: str) -> None:
        number = 0
        while not stopping.is_set():
            await stored(memory, f"{name} {number % 100}")
            number += 1

    async with MemoryClient(running.address, tls=tls_of(folder)) as memory:
        load = [asyncio.create_task(store_again_and_again(memory, f"task {n}")) for n in range(4)]
        for number in range(10):
            folder.write(authority.issue("agent"))
            await stored(memory, f"renewal {number}")
        stopping.set()
        await asyncio.gather(*load)  # raises what a call raised


@pytest.mark.usefixtures("always")
async def test_files_that_do_not_fit_are_one_warning(
    serve, authority, closed_tls_folder, folder, caplog
):
    running = await serve(**closed_tls_folder.variables)
    async with MemoryClient(running.address, tls=tls_of(folder)) as memory:
        await stored(memory, "before")
        folder.key.write_bytes(authority.issue().key)
        for number in range(5):
            await stored(memory, f"meanwhile {number}")
        warnings = [r.getMessage() for r in caplog.records if r.name == "memoryd.client.tls"]
        (warning,) = warnings
        assert f"tls.cert: {folder.cert} " in warning
        folder.write(authority.issue("agent"))
        await stored(memory, "after")
    assert len([r for r in caplog.records if r.name == "memoryd.client.tls"]) == 1


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["missing", "empty", "garbage"])
async def test_a_file_that_cannot_be_used_is_named(folder, name, content):
    tls = tls_of(folder)
    file = {"ca": folder.client_ca, "cert": folder.cert, "key": folder.key}[name]
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^tls\.") as caught:
        MemoryClient("localhost:1", tls=tls)
    assert str(file) in str(caught.value)


async def test_a_key_that_does_not_fit_is_named(authority, folder):
    folder.key.write_bytes(authority.issue().key)
    with pytest.raises(ValueError, match=r"^tls\.cert: .* fits the key") as caught:
        MemoryClient("localhost:1", tls=tls_of(folder))
    assert str(folder.key) in str(caught.value)


def test_what_tls_does_not_take(folder):
    for named, problem in (
        ({"cert": folder.cert}, r"^tls\.key: is missing"),
        ({"key": folder.key}, r"^tls\.cert: is missing"),
        ({"ca": ""}, r"^tls\.ca: expected the path"),
        ({"ca": folder.client_ca.read_text()}, r"^tls\.ca: expected the path"),
        ({"server_name": ""}, r"^tls\.server_name: is empty"),
    ):
        with pytest.raises(ValueError, match=problem):
            TLS(**named)
    for named in ({"ca": b"pem"}, {"cert": 1, "key": 2}, {"server_name": 1}):
        with pytest.raises(TypeError, match=r"^tls\."):
            TLS(**named)


async def test_tls_is_true_or_files():
    with pytest.raises(TypeError, match=r"^tls: expected True or a TLS"):
        MemoryClient("localhost:1", tls="yes")
