"""LangGraph's checkpointer over memoryd's documents.

    from memoryd.integrations.langgraph_checkpoint import MemorydSaver

    with MemorydSaver("localhost:50051") as saver:
        graph = builder.compile(checkpointer=saver)

It does what https://docs.langchain.com/oss/python/langgraph/persistence says of a checkpointer. A
thread is a session of memoryd, so that erasing the session removes all of the thread; nothing of it
ever expires.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from memoryd.client import DocumentClient, SessionClient
from memoryd.client.background import background
from memoryd.integrations.checkpoints import Checkpoints
from memoryd.integrations.names import prefix_of
from memoryd.integrations.threads import Threaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol


class MemorydSaver(Threaded, BaseCheckpointSaver[str]):
    """A checkpointer of a LangGraph application, for threads and for any event loop.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`. The
    synchronous methods raise asyncio.InvalidStateError in a thread whose event loop is running.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        prefix: str = "lgc",
        serde: SerializerProtocol | None = None,
        **connection: Any,
    ) -> None:
        """Prepare the checkpointer; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `prefix`: what the sessions of
        this checkpointer begin with: `lgc:thread-1`. `serde`: what makes bytes of values,
        LangGraph's own by default, or one that encrypts. `connection`: `api_key`, `tls`, `timeout`
        and the other arguments of `memoryd.client.DocumentClient`.
        """
        super().__init__(serde=serde)
        self._loop = background()

        async def made() -> Checkpoints:
            clients = DocumentClient(target, **connection), SessionClient(target, **connection)
            return Checkpoints(*clients, prefix_of(prefix), self.serde)

        self._checkpoints = self._loop.run(made())

    # Reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest of its thread; None: there is none."""
        return self._run(self._checkpoints.get(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest of its thread; None: there is none."""
        return await self._loop.wait(self._checkpoints.get(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  as LangGraph has it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Iterate over checkpoints, the newest first; without a config, over those of all threads.

        `filter`: what their metadata has to have. `before`: a config of a checkpoint.
        """
        found = self._checkpoints.listed(config, filter, before, limit)
        try:
            while (one := self._run(_next(found))) is not None:
                yield one
        finally:
            self._loop.run(found.aclose())

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  as LangGraph has it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Iterate over checkpoints, as `list` does."""
        found = self._checkpoints.listed(config, filter, before, limit)
        try:
            while (one := await self._loop.wait(_next(found))) is not None:
                yield one
        finally:
            await self._loop.wait(_closed(found))

    # Writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint whose parent the config names; return the config that names it.

        What takes more than 2 MiB takes several calls, of which the last has the checkpoint.
        """
        return self._run(self._checkpoints.put(config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, as `put` does."""
        return await self._loop.wait(
            self._checkpoints.put(config, checkpoint, metadata, new_versions)
        )

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task has written to channels after a checkpoint.

        A write that is there already stays, but for errors, interrupts and the like, which are
        replaced.
        """
        self._run(self._checkpoints.put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task has written, as `put_writes` does."""
        await self._loop.wait(self._checkpoints.put_writes(config, writes, task_id, task_path))

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after another: those of two branches differ."""
        del channel  # LangGraph gives None
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{secrets.token_hex(8)}"

    # Deleting and copying

    def delete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints and writes of a thread; an absent one is no error."""
        self._run(self._checkpoints.delete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints and writes of a thread; an absent one is no error."""
        await self._loop.wait(self._checkpoints.delete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete all checkpoints of runs, with their writes, whichever thread has them.

        This looks into every thread of the checkpointer.
        """
        self._run(self._checkpoints.delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete all checkpoints of runs, as `delete_for_runs` does."""
        await self._loop.wait(self._checkpoints.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one."""
        self._run(self._checkpoints.copy_thread(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one."""
        await self._loop.wait(self._checkpoints.copy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads: all but the newest of each namespace, or all (`delete`).

        Of a graph with a DeltaChannel, those before the newest that its value is made of stay too.
        """
        self._run(self._checkpoints.prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads, as `prune` does."""
        await self._loop.wait(self._checkpoints.prune(thread_ids, strategy))

    async def _close(self) -> None:
        await self._checkpoints.close()


async def _next(found: AsyncGenerator[CheckpointTuple, None]) -> CheckpointTuple | None:
    return await anext(found, None)


async def _closed(found: AsyncGenerator[CheckpointTuple, None]) -> None:
    await found.aclose()
