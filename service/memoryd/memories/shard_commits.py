"""Group commits side by side where a database spreads sessions over shards: one for each.

A shard whose machine is down then holds up no write to another. Where all rows are in one place,
there is one group commit.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, NamedTuple

from memoryd.database.tenancy import NO_TENANT
from memoryd.domain.errors import MemorydError, Overloaded
from memoryd.memories.writes import is_large, sessions_of, tenant_of
from memoryd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextvars import Context

    from memoryd.database.engine import Database
    from memoryd.memories.group_commit import GroupCommit
    from memoryd.memories.writes import Outcome, Write


class _Unplaced(NamedTuple):
    write: Write
    session_ids: frozenset[str]
    future: asyncio.Future[Outcome]
    goes_to: Callable[[GroupCommit], asyncio.Future[Outcome]]
    context: Context
    """Of the call that it is a part of, which may be traced."""


class ShardCommits:
    """What writes memories, documents and conversations in this process, each in its shard.

    What is about several shards, and everything where there are none, goes one way of its own.
    """

    def __init__(self, database: Database, make: Callable[[], GroupCommit]) -> None:
        """`make` gives what commits for one shard, or for those writes that have several."""
        self._database = database
        self._make = make
        self._common = make()
        self._of_shard: dict[int, GroupCommit] = {}
        self._coming = 0
        """Writes that are admitted and not submitted, where there are shards."""
        self._unplaced: list[_Unplaced] = []
        """Writes to sessions whose shard is being asked for, in their order."""
        self._placing: asyncio.Task[None] | None = None

    @property
    def all_waiting(self) -> int:
        """How much waits for its transaction, by weight."""
        return len(self._unplaced) + sum(one.all_waiting for one in self._all)

    def waiting(self, tenant: str) -> int:
        """How many writes of a tenant wait for their transaction, by weight."""
        unplaced = sum(tenant_of(one.write) == tenant for one in self._unplaced)
        return unplaced + sum(one.waiting(tenant) for one in self._all)

    @contextmanager
    def admitted(self, tenant: str) -> Iterator[None]:
        """Have a write come while its request is read, so that those of a bunch see each other.

        Raises Overloaded where a further write of the tenant would have to wait for too long. It is
        not known yet for which shard it would, so that here all of them have to be that busy; where
        its own is, `submit` and `begin` raise it.
        """
        if not self._are_several:
            with self._common.admitted(tenant):
                yield
            return
        self._check_every_shard(tenant)
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def _check_every_shard(self, tenant: str) -> None:
        refusal: Overloaded | None = None
        for one in self._of_shard.values():
            try:
                one.check(tenant, others=self._coming // len(self._of_shard))
            except Overloaded as refused:
                refusal = refused
            else:
                return
        if refusal is not None:
            raise refusal

    async def submit(self, write: Write) -> Outcome:
        """Return once the write is committed.

        Raises what `GroupCommit.submit` raises.
        """
        if not self._are_several:
            return await self._common.submit(write)
        if not is_large(write):
            return await self.begin(write)
        return await self._placed(write, lambda one: asyncio.ensure_future(one.submit(write)))

    def begin(self, write: Write) -> asyncio.Future[Outcome]:
        """Give a future that is done once the write is committed; cancelled, it may not be.

        Raises Overloaded and ShuttingDown, here or by the future; the rest of what `submit` raises
        is the future's.
        """
        if not self._are_several:
            return self._common.begin(write)
        return self._placed(write, lambda one: one.begin(write))

    async def close(self) -> None:
        """Commit what is waiting, and take no more."""
        if self._placing is not None:
            await self._placing
        await asyncio.gather(*(one.close() for one in self._all))

    @property
    def _are_several(self) -> bool:
        return self._database.dialect.shards is not None

    @property
    def _all(self) -> Sequence[GroupCommit]:
        return (self._common, *self._of_shard.values())

    def _placed(
        self, write: Write, goes_to: Callable[[GroupCommit], asyncio.Future[Outcome]]
    ) -> asyncio.Future[Outcome]:
        session_ids = frozenset(session.session_id for session in sessions_of(write))
        # Behind those that wait to be placed, or one could overtake another of its session.
        if not self._unplaced and (place := self._place(session_ids)) is not None:
            with place.admitted(tenant_of(write)):
                return goes_to(place)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._unplaced.append(_Unplaced(write, session_ids, future, goes_to, copy_context()))
        if self._placing is None or self._placing.done():
            self._placing = asyncio.create_task(
                self._place_all(), name="shards", context=spans.detached()
            )
        return future

    def _place(self, session_ids: frozenset[str]) -> GroupCommit | None:
        """Give what commits for sessions; None where the shard of one is unknown."""
        shards = self._database.dialect.shards
        if shards is None:
            return self._common
        found = shards.known(session_ids)
        if found is None or len(found) != 1:
            return None if found is None else self._common
        (shard,) = found
        if shard not in self._of_shard:
            self._of_shard[shard] = self._make()
        return self._of_shard[shard]

    async def _place_all(self) -> None:
        while self._unplaced:
            asked = [*self._unplaced]
            session_ids = frozenset().union(*(one.session_ids for one in asked))
            error = await self._ask(session_ids)
            del self._unplaced[: len(asked)]
            for one in asked:
                if one.future.done():
                    continue  # the caller has gone
                if error is not None:
                    one.future.set_exception(error)
                    continue
                # Where so many are known that some were forgotten at once, the common way will do.
                place = self._place(one.session_ids) or self._common
                try:
                    with place.admitted(tenant_of(one.write)):
                        _follow(one.context.run(one.goes_to, place), one.future)
                except MemorydError as refused:
                    one.future.set_exception(refused)

    async def _ask(self, session_ids: frozenset[str]) -> Exception | None:
        """Ask for the shards of sessions; give what stood in the way."""
        shards = self._database.dialect.shards
        if shards is None:
            return None
        try:
            await self._database.read(lambda c: shards.of(c, session_ids), tenants=NO_TENANT)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the callers
            return error
        return None


def _follow(done: asyncio.Future[Outcome], waiting: asyncio.Future[Outcome]) -> None:
    """Have one future end as another does, and that one be cancelled with it."""

    def settle(_: object) -> None:
        if waiting.done():
            return
        if done.cancelled():
            waiting.cancel()
        elif (error := done.exception()) is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(done.result())

    done.add_done_callback(settle)
    waiting.add_done_callback(lambda _: done.cancel() if waiting.cancelled() else None)
