"""The clients for programs without an event loop: the same names, arguments, answers and errors.

    from memoryd.client.sync import MemoryClient

    with MemoryClient("localhost:50051") as memory:
        memory.store("user-123", "prefers e-mail", content_type="preference")

Any number of threads may use a client at once; their stores share a stream, as those of tasks do.
The event loop of one thread makes the calls of all clients; the first one starts it. After a fork,
the child makes clients of its own.

What iterates (`list`, `watch`, `export` and others) is a generator; one that is not read to its end
is to be closed.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar

from memoryd.client import access, channel, conversations, documents, memories, sessions, tools
from memoryd.client import arguments as args
from memoryd.client.background import Background, Closing, background
from memoryd.client.channel import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
    from datetime import datetime
    from typing import TypeAlias

    import grpc
    import grpc.aio

    from memoryd.client.credentials import TokenProvider
    from memoryd.client.tls import TLS

    Provider: TypeAlias = TokenProvider | Callable[[], tuple[str, datetime | float | None]]

__all__ = [
    "AccessClient",
    "Channel",
    "ConversationClient",
    "ConversationHandle",
    "DocumentClient",
    "MemoryClient",
    "SessionClient",
    "ToolConfigClient",
    "open_channel",
]

_A_co = TypeVar("_A_co", covariant=True)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Facade(Generic[_A_co]):
    """Something asynchronous, and the loop that it lives in."""

    def __init__(self, inner: _A_co, loop: Background) -> None:
        self._inner = inner
        self._loop = loop


def _blocking(
    method: Callable[Concatenate[_A_co, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[Facade[_A_co], _P], _R]:
    """A method that waits for the result."""

    @wraps(method)
    def call(self: Facade[_A_co], /, *given: _P.args, **named: _P.kwargs) -> _R:
        return self._loop.run(method(self._inner, *given, **named))

    return call


def _iterating(
    method: Callable[Concatenate[_A_co, _P], AsyncGenerator[_R, None]],
) -> Callable[Concatenate[Facade[_A_co], _P], Generator[_R, None, None]]:
    """A method that iterates."""

    @wraps(method)
    def call(
        self: Facade[_A_co], /, *given: _P.args, **named: _P.kwargs
    ) -> Generator[_R, None, None]:
        return _items(method(self._inner, *given, **named), self._loop)

    return call


def _items(source: AsyncGenerator[_R, None], loop: Background) -> Generator[_R, None, None]:
    end = object()

    async def following() -> Any:
        return await anext(source, end)

    try:
        while (item := loop.run(following())) is not end:
            yield item
    finally:
        loop.run(source.aclose())


class Channel(Closing, Facade["grpc.aio.Channel"]):
    """A channel for clients to share; `open_channel` opens it."""

    def close(self) -> None:
        """Close it; this cancels calls under way."""
        self._loop.run(_closed(self._inner))


async def _closed(inner: grpc.aio.Channel) -> None:
    await inner.close()


def open_channel(
    target: str | None = None,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Mapping[str, str | int] | None = None,
    tls: TLS | bool | None = None,
    api_key: str | None = None,
    token_provider: Provider | None = None,
    allow_plaintext_credentials: bool = False,
) -> Channel:
    """Open a channel for clients to share, as `memoryd.client.open_channel` does."""
    loop = background()

    async def opened() -> grpc.aio.Channel:
        return channel.open_channel(
            target,
            credentials=credentials,
            options=options,
            tls=tls,
            api_key=api_key,
            token_provider=_awaited(token_provider),
            allow_plaintext_credentials=allow_plaintext_credentials,
        )

    return Channel(loop.run(opened()), loop)


class _Client(Closing, Facade[_A_co]):
    """A client of one service."""

    _kind: ClassVar[type[Any]]

    def __init__(
        self,
        target: str | None = None,
        *,
        channel: Channel | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Mapping[str, str | int] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        metadata: Mapping[str, str | bytes] | None = None,
        tls: TLS | bool | None = None,
        api_key: str | None = None,
        token_provider: Provider | None = None,
        allow_plaintext_credentials: bool = False,
    ) -> None:
        """Prepare the client; the first call connects.

        The arguments are those of the asynchronous client, but that `channel` is one from this
        module's `open_channel`, and that `token_provider` may also be an ordinary function, which
        is called in a thread of its own.
        """
        if channel is not None and not isinstance(channel, Channel):
            raise TypeError(
                f"channel: expected one from sync.open_channel, not {args.shown(channel)}"
            )
        loop = background()

        async def made() -> _A_co:
            inner: _A_co = self._kind(
                target,
                channel=None if channel is None else channel._inner,  # noqa: SLF001  of this module
                credentials=credentials,
                options=options,
                timeout=timeout,
                metadata=metadata,
                tls=tls,
                api_key=api_key,
                token_provider=_awaited(token_provider),
                allow_plaintext_credentials=allow_plaintext_credentials,
            )
            return inner

        super().__init__(loop.run(made()), loop)

    def close(self) -> None:
        """Close the channel unless it is shared; this cancels calls under way."""
        inner: Any = self._inner
        self._loop.run(inner.close())


def _awaited(provider: Any) -> Any:
    """A provider as an async function; what is no provider stays, and is refused by its name."""
    if not callable(provider) or inspect.iscoroutinefunction(provider):
        return provider

    async def awaited() -> Any:
        given = await asyncio.to_thread(provider)
        return await given if inspect.isawaitable(given) else given

    return awaited


class MemoryClient(_Client[memories.MemoryClient]):
    """Memories, by session: `memoryd.client.MemoryClient` for threads."""

    _kind = memories.MemoryClient

    store = _blocking(memories.MemoryClient.store)
    store_many = _blocking(memories.MemoryClient.store_many)
    get = _blocking(memories.MemoryClient.get)
    list = _iterating(memories.MemoryClient.list)
    list_page = _blocking(memories.MemoryClient.list_page)
    retrieve = _blocking(memories.MemoryClient.retrieve)
    find_similar = _blocking(memories.MemoryClient.find_similar)
    update = _blocking(memories.MemoryClient.update)
    delete = _blocking(memories.MemoryClient.delete)
    undelete = _blocking(memories.MemoryClient.undelete)
    revisions = _iterating(memories.MemoryClient.revisions)
    rollback = _blocking(memories.MemoryClient.rollback)
    purge = _blocking(memories.MemoryClient.purge)
    erase = _blocking(memories.MemoryClient.erase)
    watch = _iterating(memories.MemoryClient.watch)
    export = _iterating(memories.MemoryClient.export)


class SessionClient(_Client[sessions.SessionClient]):
    """Sessions: `memoryd.client.SessionClient` for threads."""

    _kind = sessions.SessionClient

    list = _iterating(sessions.SessionClient.list)
    get = _blocking(sessions.SessionClient.get)
    update = _blocking(sessions.SessionClient.update)
    merge = _blocking(sessions.SessionClient.merge)


class DocumentClient(_Client[documents.DocumentClient]):
    """Documents: `memoryd.client.DocumentClient` for threads."""

    _kind = documents.DocumentClient

    put = _blocking(documents.DocumentClient.put)
    write_many = _blocking(documents.DocumentClient.write_many)
    get = _blocking(documents.DocumentClient.get)
    get_many = _blocking(documents.DocumentClient.get_many)
    delete = _blocking(documents.DocumentClient.delete)
    delete_all = _blocking(documents.DocumentClient.delete_all)
    move = _blocking(documents.DocumentClient.move)
    move_all = _blocking(documents.DocumentClient.move_all)
    list = _iterating(documents.DocumentClient.list)
    namespaces = _iterating(documents.DocumentClient.namespaces)
    search = _blocking(documents.DocumentClient.search)
    revisions = _iterating(documents.DocumentClient.revisions)
    watch = _iterating(documents.DocumentClient.watch)
    export = _iterating(documents.DocumentClient.export)


class ConversationHandle(Facade[conversations.ConversationHandle]):
    """A conversation of a client: `memoryd.client.ConversationHandle` for threads."""

    get = _blocking(conversations.ConversationHandle.get)
    update = _blocking(conversations.ConversationHandle.update)
    delete = _blocking(conversations.ConversationHandle.delete)
    append = _blocking(conversations.ConversationHandle.append)
    messages = _iterating(conversations.ConversationHandle.messages)
    window = _blocking(conversations.ConversationHandle.window)
    context = _blocking(conversations.ConversationHandle.context)
    pop = _blocking(conversations.ConversationHandle.pop)
    rewrite = _blocking(conversations.ConversationHandle.rewrite)
    fork = _blocking(conversations.ConversationHandle.fork)
    set_head = _blocking(conversations.ConversationHandle.set_head)
    set_summary = _blocking(conversations.ConversationHandle.set_summary)
    promote = _blocking(conversations.ConversationHandle.promote)
    watch = _iterating(conversations.ConversationHandle.watch)
    export = _iterating(conversations.ConversationHandle.export)


class ConversationClient(_Client[conversations.ConversationClient]):
    """Conversations: `memoryd.client.ConversationClient` for threads."""

    _kind = conversations.ConversationClient

    create = _blocking(conversations.ConversationClient.create)
    get = _blocking(conversations.ConversationClient.get)
    update = _blocking(conversations.ConversationClient.update)
    list = _iterating(conversations.ConversationClient.list)
    delete = _blocking(conversations.ConversationClient.delete)
    append = _blocking(conversations.ConversationClient.append)
    messages = _iterating(conversations.ConversationClient.messages)
    window = _blocking(conversations.ConversationClient.window)
    context = _blocking(conversations.ConversationClient.context)
    pop = _blocking(conversations.ConversationClient.pop)
    rewrite = _blocking(conversations.ConversationClient.rewrite)
    fork = _blocking(conversations.ConversationClient.fork)
    set_head = _blocking(conversations.ConversationClient.set_head)
    set_summary = _blocking(conversations.ConversationClient.set_summary)
    promote = _blocking(conversations.ConversationClient.promote)
    watch = _iterating(conversations.ConversationClient.watch)
    export = _iterating(conversations.ConversationClient.export)

    def conversation(self, session_id: str, conversation_id: str) -> ConversationHandle:
        """Return a handle of one conversation, which need not exist; nothing is sent."""
        return ConversationHandle(self._inner.conversation(session_id, conversation_id), self._loop)


class ToolConfigClient(_Client[tools.ToolConfigClient]):
    """The configuration of tools: `memoryd.client.ToolConfigClient` for threads."""

    _kind = tools.ToolConfigClient

    list_tools = _blocking(tools.ToolConfigClient.list_tools)
    get = _blocking(tools.ToolConfigClient.get)
    update = _blocking(tools.ToolConfigClient.update)
    reset = _blocking(tools.ToolConfigClient.reset)
    validate = _blocking(tools.ToolConfigClient.validate)
    revisions = _iterating(tools.ToolConfigClient.revisions)
    rollback = _blocking(tools.ToolConfigClient.rollback)
    watch = _iterating(tools.ToolConfigClient.watch)


class AccessClient(_Client[access.AccessClient]):
    """API keys, tenants, usage and the audit: `memoryd.client.AccessClient` for threads."""

    _kind = access.AccessClient

    who_am_i = _blocking(access.AccessClient.who_am_i)
    create_key = _blocking(access.AccessClient.create_key)
    keys = _iterating(access.AccessClient.keys)
    revoke_key = _blocking(access.AccessClient.revoke_key)
    rotate_key = _blocking(access.AccessClient.rotate_key)
    tenants = _iterating(access.AccessClient.tenants)
    update_tenant = _blocking(access.AccessClient.update_tenant)
    audit_events = _iterating(access.AccessClient.audit_events)
    usage = _blocking(access.AccessClient.usage)
