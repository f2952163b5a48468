"""Which of several hosts a connection uses."""

from __future__ import annotations

import asyncio

import pytest

from memoryd.database.failover import HostFailover


class Driver:
    """Connects to each host as configured: at once, never, or with an error."""

    def __init__(self, **hosts: str) -> None:
        self.hosts = hosts
        self.asked: list[str] = []
        self.goes_on = asyncio.Event()

    async def __call__(self, *, timeout: float, host: str, port: int, **arguments: object):
        self.asked.append(host)
        match self.hosts[host]:
            case "silent":
                async with asyncio.timeout(timeout):
                    await asyncio.Event().wait()
            case "refuses":
                raise ConnectionRefusedError(host)
            case "goes on later":
                await self.goes_on.wait()
        return Connection((host, port, arguments))


class Connection(tuple):
    """What was asked for."""

    __slots__ = ()

    def terminate(self) -> None:
        """Nothing is open."""


async def connected(driver: Driver, connect: HostFailover, timeout: float = 0.05) -> str:
    driver.asked.clear()
    hosts, ports = list(driver.hosts), list(range(len(driver.hosts)))
    return (await connect(timeout=timeout, host=hosts, port=ports, user="x"))[0]


async def test_the_first_host_that_accepts_is_used_and_tried_first_afterwards():
    driver = Driver(a="refuses", b="silent", c="takes", d="takes")
    connect = HostFailover(driver, (OSError,))
    assert await connected(driver, connect) == "c"
    assert driver.asked == ["a", "b", "c"]
    assert await connected(driver, connect) == "c"
    assert driver.asked == ["c"]
    driver.hosts |= {"a": "takes", "c": "refuses"}
    assert await connected(driver, connect) == "a"
    assert driver.asked == ["c", "a"]


async def test_a_host_that_another_has_replaced_while_it_was_silent_is_passed_over():
    driver = Driver(a="goes on later", b="takes")
    connect = HostFailover(driver, (OSError,))
    begun = asyncio.create_task(connected(driver, connect, timeout=60))
    await asyncio.sleep(0)
    driver.hosts["a"] = "refuses"
    assert await connected(driver, connect) == "b"
    driver.goes_on.set()
    assert await begun == "b"
    assert await connected(driver, connect) == "b"
    assert driver.asked == ["b"]


async def test_if_no_host_accepts_the_last_error_is_raised():
    driver = Driver(a="silent", b="refuses")
    with pytest.raises(ConnectionRefusedError, match="b"):
        await connected(driver, HostFailover(driver, (OSError,)))


async def test_a_single_host_has_the_whole_timeout_and_other_errors_are_raised():
    async def broken(**_: object):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await HostFailover(broken, (OSError,))(timeout=1, host=["a", "b"], port=[1, 2])
    driver = Driver(a="takes")
    found = await HostFailover(driver, (OSError,))(timeout=1, host="a", port=5, user="x")
    assert found == ("a", 5, {"user": "x"})
