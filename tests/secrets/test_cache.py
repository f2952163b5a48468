"""What is cached, for how long, and what is used when a provider fails."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pydantic import SecretStr

from memoryd.tools.secrets import SecretReference, Secrets, SecretUnavailableError
from memoryd.tools.secrets.cache import (
    MAX_REFERENCES,
    MAX_UNDER_WAY,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    TTL_SECONDS,
)

CANARY = "c4n4ry"
CRM = SecretReference.parse("secretsmanager://aws/crm")


class Remote:
    """A scripted provider that counts its requests."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: str | Exception = "first"
        self.open = asyncio.Event()
        self.open.set()

    async def resolve(self, _reference: SecretReference) -> SecretStr:
        self.asked += 1
        await self.open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return SecretStr(self.answer)


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.remote = Remote()
        self.secrets = Secrets({"secretsmanager": self.remote}, clock=lambda: self.now)

    async def value(self, reference: SecretReference = CRM, *, timeout: float = 5) -> str:
        return (await self.secrets.resolve(reference, timeout=timeout)).get_secret_value()

    async def failure(
        self, reference: SecretReference = CRM, *, timeout: float = 5
    ) -> SecretUnavailableError:
        with pytest.raises(SecretUnavailableError) as caught:
            await self.value(reference, timeout=timeout)
        return caught.value

    async def settle(self) -> None:
        """Wait until background work ends."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def world() -> World:
    return World()


def denied() -> SecretUnavailableError:
    return SecretUnavailableError("denied", "allow it")


async def test_a_value_is_read_once_until_it_is_to_be_refreshed(world):
    for _ in range(5):
        assert await world.value() == "first"
        world.now += REFRESH_SECONDS / 5 - 1
    await world.settle()
    assert world.remote.asked == 1


async def test_a_value_in_use_is_refreshed_before_it_expires(world):
    await world.value()
    world.remote.answer = "second"
    world.remote.open.clear()
    world.now += REFRESH_SECONDS
    assert await world.value() == "first"
    assert await world.value() == "first"
    await world.settle()
    assert world.remote.asked == 2
    world.remote.open.set()
    await world.settle()
    assert await world.value() == "second"
    assert world.remote.asked == 2


async def test_an_expired_value_is_waited_for(world):
    await world.value()
    world.remote.answer = "second"
    world.now += TTL_SECONDS
    assert await world.value() == "second"


async def test_the_last_good_value_outlives_failures_and_they_are_logged(world, caplog):
    caplog.set_level(logging.WARNING)
    world.remote.answer = CANARY
    await world.value()
    assert world.secrets.refresh_failure(CRM) is None
    world.remote.answer = denied()
    for _ in range(3):
        world.now += TTL_SECONDS
        assert await world.value() == CANARY
        assert str(world.secrets.refresh_failure(CRM)) == "denied; allow it"
    assert [(r.getMessage(), r.reference, r.reason) for r in caplog.records] == [
        ("secret not refreshed; its last value stays in use", CRM.source, "denied")
    ] * 3
    assert CANARY not in str([vars(record) for record in caplog.records])
    world.remote.answer = "second"
    world.now += RETRY_SECONDS
    assert await world.value() == "second"
    assert world.secrets.refresh_failure(CRM) is None


async def test_the_last_good_value_serves_while_the_provider_hangs(world):
    await world.value()
    world.remote.open.clear()
    world.now += TTL_SECONDS
    assert await world.value(timeout=0) == "first"
    world.remote.open.set()


async def test_a_failure_is_cached_for_a_while(world):
    world.remote.answer = denied()
    for _ in range(5):
        assert (await world.failure()).reason == "denied"
    assert world.remote.asked == 1
    world.now += RETRY_SECONDS
    await world.failure()
    assert world.remote.asked == 2
    world.now += RETRY_SECONDS
    world.remote.answer = "first"
    assert await world.value() == "first"


async def test_many_callers_ask_once(world):
    world.remote.open.clear()
    callers = [asyncio.create_task(world.value()) for _ in range(20)]
    await world.settle()
    callers[0].cancel()
    await world.settle()
    world.remote.open.set()
    assert await asyncio.gather(*callers[1:]) == ["first"] * 19
    assert callers[0].cancelled()
    assert world.remote.asked == 1


async def test_no_caller_waits_longer_than_its_timeout_and_the_answer_is_kept(world):
    world.remote.open.clear()
    late = await world.failure(timeout=0.01)
    assert late.reason == "secretsmanager:// did not answer within 0.01 s"
    world.remote.open.set()
    assert await world.value() == "first"
    assert world.remote.asked == 1


async def test_an_unhandled_exception_of_a_provider_shows_only_its_type(world, caplog):
    caplog.set_level(logging.DEBUG)
    world.remote.answer = KeyError(CANARY)
    failure = await world.failure()
    assert failure.reason == "secretsmanager:// failed with KeyError"
    assert CANARY not in str([vars(record) for record in caplog.records])


async def test_cached_values_and_running_requests_are_bounded(world):
    def reference(number: int) -> SecretReference:
        return SecretReference.parse(f"secretsmanager://aws/secret-{number}")

    for number in range(MAX_REFERENCES + 1):
        await world.value(reference(number))
    await world.value(reference(1))
    assert world.remote.asked == MAX_REFERENCES + 1
    await world.value(reference(0))
    assert world.remote.asked == MAX_REFERENCES + 2

    world.remote.open.clear()
    waiting = [
        asyncio.create_task(world.value(reference(-number)))
        for number in range(1, 1 + MAX_UNDER_WAY)
    ]
    await world.settle()
    crowded = await world.failure(reference(-1000))
    assert crowded.reason == f"secretsmanager:// is being asked for {MAX_UNDER_WAY} secrets already"
    world.remote.open.set()
    await asyncio.gather(*waiting)
    assert await world.value(reference(-1000)) == "first"
