"""Heavy work takes turns, and ends with the call that asked for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from memoryd.domain.errors import Overloaded
from memoryd.retrieval.heavy import GivenUp, Turns, in_thread, in_thread_to_its_end


async def test_work_in_a_thread_ends_with_its_caller():
    started, ended = threading.Event(), threading.Event()

    def work(check):
        started.set()
        try:
            while True:
                check()
        except GivenUp:
            ended.set()
            raise

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 30)


async def test_work_to_its_end_is_over_when_its_caller_goes_on():
    started, may_end, has_ended = threading.Event(), threading.Event(), threading.Event()

    def work(check):
        started.set()
        may_end.wait(30)
        has_ended.set()
        check()

    task = asyncio.create_task(in_thread_to_its_end(work))
    await asyncio.to_thread(started.wait, 30)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert has_ended.is_set()


@pytest.mark.parametrize("do", [in_thread, in_thread_to_its_end])
async def test_what_a_thread_answers_or_raises_is_passed_on(do):
    assert await do(lambda check: check()) is None
    assert await do(lambda _: threading.current_thread()) is not threading.main_thread()

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await do(fail)


class Work:
    """Holds a turn until `finish`."""

    def __init__(self, turns: Turns, amount: int, tenant: str = "a") -> None:
        self.has_turn = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, amount, tenant))

    async def _run(self, turns: Turns, amount: int, tenant: str) -> None:
        async with turns.turn(tenant, amount):
            self.has_turn.set()
            await self.end.wait()

    async def finish(self) -> None:
        self.end.set()
        await self.task


async def test_turns_and_the_queue_are_limited():
    turns = Turns(2, most_waiting=10, noun="sessions")
    first, second = Work(turns, 1_000), Work(turns, 1_000)
    await first.has_turn.wait()
    await second.has_turn.wait()
    third = Work(turns, 6)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="sessions"):
        await Work(turns, 5).task
    assert not third.has_turn.is_set()
    await first.finish()
    await third.has_turn.wait()
    for work in (second, third):
        await work.finish()


async def test_cancelling_a_wait_or_a_turn_lets_others_run():
    turns = Turns(1, most_waiting=10, noun="sessions")
    first = Work(turns, 10)
    await first.has_turn.wait()
    waiting = Work(turns, 10)
    await asyncio.sleep(0)
    waiting.task.cancel()
    await asyncio.gather(waiting.task, return_exceptions=True)
    next_one = Work(turns, 10)
    await asyncio.sleep(0)
    first.task.cancel()
    await next_one.has_turn.wait()
    await next_one.finish()


async def test_tenants_take_turns():
    turns = Turns(1, most_waiting=100, noun="sessions")
    first = Work(turns, 1)
    await first.has_turn.wait()
    flood = [Work(turns, 10) for _ in range(10)]  # all that may wait
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await Work(turns, 1).task
    light = Work(turns, 10, tenant="b")  # less than its share
    await asyncio.sleep(0)
    await first.finish()
    await flood[0].has_turn.wait()
    await flood[0].finish()
    await light.has_turn.wait()
    assert not any(work.has_turn.is_set() for work in flood[1:])
    await light.finish()
    for work in flood[1:]:
        await work.has_turn.wait()
        await work.finish()


async def test_who_no_longer_waits_makes_room_for_others():
    turns = Turns(1, most_waiting=10, noun="sessions")
    first = Work(turns, 1)
    await first.has_turn.wait()
    for _ in range(3):
        waiting = Work(turns, 10)
        await asyncio.sleep(0)
        waiting.task.cancel()
        await asyncio.gather(waiting.task, return_exceptions=True)
    await first.finish()
    last = Work(turns, 10)
    await last.has_turn.wait()
    await last.finish()
