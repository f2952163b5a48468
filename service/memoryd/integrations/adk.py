"""The session service and the memory service of Google's ADK over memoryd.

    from memoryd.integrations.adk import MemorydMemoryService, MemorydSessionService

    runner = Runner(
        app_name="shop",
        agent=agent,
        session_service=MemorydSessionService("localhost:50051"),
        memory_service=MemorydMemoryService("localhost:50051"),
    )

What is kept of a user of an app is in one session of memoryd, so that erasing it removes all of it:
a session of ADK is a conversation there, a value of the user's state a document, what is remembered
a memory. None of it expires. What the users of an app share is in another one.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakValueDictionary

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import BaseSessionService, ListSessionsResponse
from google.adk.sessions.session import Session

from memoryd.client import (
    DEFAULT_TIMEOUT,
    AlreadyExists,
    ConversationClient,
    DocumentClient,
    EtagMismatch,
    InvalidArgument,
    MemoryClient,
    NotFound,
    SessionClient,
    open_channel,
)
from memoryd.client.background import background
from memoryd.client.connection import ClosedOnExit
from memoryd.integrations import adk_history as history
from memoryd.integrations import adk_memories as remembered
from memoryd.integrations.adk_conversations import Conversations, Place, is_of, other_event
from memoryd.integrations.adk_memories import Memories
from memoryd.integrations.adk_state import SharedState, check_keys, values_in
from memoryd.integrations.names import prefix_of, unescaped
from memoryd.integrations.names import session_id as id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import grpc.aio
    from google.adk.memory.memory_entry import MemoryEntry
    from google.adk.sessions.base_session_service import GetSessionConfig

    from memoryd.client import Conversation, NewMessage

SCHEME = "memoryd"

_STALE = (
    "The session has been modified in storage since it was loaded. Please reload the session before"
    " appending more events."
)


class _Names(NamedTuple):
    """Where things are."""

    prefix: str

    def app(self, app_name: str) -> str:
        return id_of(self.prefix, [app_name])

    def user(self, app_name: str, user_id: str) -> str:
        return id_of(self.prefix, [app_name, user_id])

    def conversation(self, session_id: str) -> str:
        # With the prefix, since an id does not begin with what is escaped.
        return id_of(self.prefix, [session_id])

    def place(self, app_name: str, user_id: str, session_id: str) -> Place:
        return self.user(app_name, user_id), self.conversation(session_id)

    def place_of(self, session: Session) -> Place:
        return self.place(session.app_name, session.user_id, session.id)


class _Appended(NamedTuple):
    """What has become of a message."""

    etag: str
    """Of the conversation with it."""
    moment: int
    """When it was appended, in microseconds since 1970."""
    is_late: bool
    """Whether a call before appended it."""


class MemorydSessionService(ClosedOnExit, BaseSessionService):
    """The sessions of apps and users, for any event loop.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`, and
    ValueError for names that are too long.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        prefix: str = "adk",
        timeout: float | None = DEFAULT_TIMEOUT,
        **connection: Any,
    ) -> None:
        """Prepare the service; the first call connects.

        `target`: `host:port`; None: the variable MEMORYD_TARGET. `prefix`: what its sessions of
        memoryd begin with: `adk:shop:ada` is of the user ada of the app shop, `adk:shop` of all
        users of the app. `timeout`: seconds that a call may take. `connection`: `api_key`, `tls`
        and the other arguments of `memoryd.client.open_channel`.
        """
        self._names = _Names(prefix_of(prefix))
        # Held by who appends, so that appends to one object follow each other.
        self._locks: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()
        self._loop = background()

        async def made() -> tuple[grpc.aio.Channel, Conversations, DocumentClient]:
            channel = open_channel(target, **connection)
            conversations = ConversationClient(channel=channel, timeout=timeout)
            documents = DocumentClient(channel=channel, timeout=timeout)
            return channel, Conversations(conversations), documents

        self._channel, self._conversations, self._documents = self._loop.run(made())

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Make a session. Raises AlreadyExistsError where the user has one with the id."""
        session = Session(
            app_name=app_name,
            user_id=user_id,
            # In the context of the caller, which may give ids and times of its own.
            id=(session_id or "").strip() or platform_uuid.new_uuid(),
            last_update_time=platform_time.get_time(),
        )
        # By ADK's own rules for what is no JSON.
        given = EventActions(state_delta=state or {}).model_dump(mode="json")["state_delta"]
        kept = {key: given[key] for key in given if not key.startswith(history.TEMP_PREFIX)}
        check_keys(kept)
        await self._loop.wait(self._create(session, kept))
        return session

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Read a session with its events; None where there is none.

        `config`: of the newest `num_recent_events`, those that are not before `after_timestamp`.
        """
        session = Session(app_name=app_name, user_id=user_id, id=session_id.strip())
        last = None if config is None else config.num_recent_events
        if not await self._loop.wait(self._fill(session, last)):
            return None
        if config is not None and (since := config.after_timestamp) is not None:
            session.events = [event for event in session.events if event.timestamp >= since]
        return session

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """List the sessions of a user, or of all users, without events: the last updated last."""
        sessions = await self._loop.wait(self._list(app_name, user_id))
        sessions.sort(key=lambda each: (each.last_update_time, each.user_id, each.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session with its events for good; what it shares with others stays.

        It is no error if there is none.
        """
        place = self._names.place(app_name, user_id, session_id.strip())
        await self._loop.wait(self._conversations.delete(place))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Read what the sessions of a user share, by keys without `user:`."""
        shared = self._user_state(self._names.user(app_name, user_id))
        state = values_in(await self._loop.wait(shared.read()))
        return {key.removeprefix(history.USER_PREFIX): value for key, value in state.items()}

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event, and set what it sets: of the session, of the user and of the app.

        Where it fails and may have been done all the same, the next call with the same event does
        it once.

        Raises StaleSessionError where others appended since the session was read,
        SessionNotFoundError where it is gone, AlreadyExistsError where another event has the id.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        kept = event.model_dump(mode="json", exclude_none=True)
        check_keys(history.delta_of(kept))
        if await self._loop.wait(self._append(session, event.timestamp, kept)):
            self._commit_event_to_session(session, event)
        return event

    async def close(self) -> None:
        """Close the connection; this ends calls under way."""
        await self._loop.wait(self._channel.close())

    # What follows runs in the one loop of the clients.

    def _user_state(self, user_session: str) -> SharedState:
        return SharedState(self._documents, user_session, history.USER_PREFIX)

    def _app_state(self, app_name: str) -> SharedState:
        return SharedState(self._documents, self._names.app(app_name), history.APP_PREFIX)

    def _shared(self, session: Session) -> tuple[SharedState, SharedState]:
        user_session, _ = self._names.place_of(session)
        return self._user_state(user_session), self._app_state(session.app_name)

    async def _create(self, session: Session, state: dict[str, Any]) -> None:
        first = history.beginning(state, uuid.uuid4().hex)
        patch = history.state_patch(state, first.message_id, session.last_update_time)
        try:
            answer = await self._conversations.append(self._names.place_of(session), first, patch)
        except AlreadyExists:
            raise AlreadyExistsError(f"Session with id {session.id} already exists.") from None
        moment = history.moment_of(answer.messages[0])
        steps = [history.Step(first.message_id, None, state, moment)]
        shared = self._shared(session)
        await asyncio.gather(*(each.set(steps) for each in shared))
        user_state, app_state = await asyncio.gather(*(each.read() for each in shared))
        session.state = history.own(state) | values_in(app_state) | values_in(user_state)
        _mark(session, answer.conversation.etag)

    async def _fill(self, session: Session, last: int | None) -> bool:
        """Give a session what is kept of it. False: there is none."""
        place = self._names.place_of(session)
        user, app = self._shared(session)
        while True:
            conversation, user_state, app_state = await asyncio.gather(
                self._conversations.read(place), user.read(), app.read()
            )
            if conversation is None:
                return False
            try:
                steps = await self._conversations.steps(conversation, last)
                own = await self._conversations.own_state(conversation, steps, is_all=last is None)
            except NotFound:
                continue  # it was deleted meanwhile
            shared = await app.complete(app_state, steps) | await user.complete(user_state, steps)
            session.state = own | shared
            events = [step.event for step in steps if step.event is not None]
            session.events = [Event.model_validate(each) for each in events]
            session.last_update_time = history.update_time_of(conversation)
            _mark(session, conversation.etag)
            return True

    async def _list(self, app_name: str, user_id: str | None) -> list[Session]:
        if user_id is None:
            found = self._conversations.all_below(f"{self._names.app(app_name)}:")
        else:
            found = self._conversations.all_of(self._names.user(app_name, user_id))
        conversations, stored = await asyncio.gather(found, self._app_state(app_name).read())
        app_state = values_in(stored)
        # Not forks that others made of one.
        ours = self._names.conversation("")
        conversations = [each for each in conversations if each.conversation_id.startswith(ours)]
        user_states = {
            each: values_in(await self._user_state(each).read())
            for each in sorted({conversation.session_id for conversation in conversations})
        }
        sessions = []
        for conversation in conversations:
            try:
                own = await self._conversations.own_state(conversation)
            except NotFound:
                continue  # it was deleted meanwhile
            session = _session_of(app_name, conversation)
            session.state = own | app_state | user_states[conversation.session_id]
            sessions.append(session)
        return sessions

    async def _append(self, session: Session, timestamp: float, event: dict[str, Any]) -> bool:
        """Append an event, given as JSON. False: the session has it."""
        place = self._names.place_of(session)
        message = history.event_message(event)
        delta = history.delta_of(event)
        async with self._locks.setdefault(place, asyncio.Lock()):
            is_known = any(each.id == event["id"] for each in reversed(session.events))
            if is_known and await self._conversations.moment_of(place, message) is not None:
                return False
            patch = history.state_patch(delta, message.message_id, timestamp)
            done = await self._appended(session, place, message, patch)
            steps = [history.Step(message.message_id, event, delta, done.moment)]
            shared = self._shared(session)
            await asyncio.gather(*(each.set(steps, is_late=done.is_late) for each in shared))
            session.last_update_time = timestamp
            _mark(session, done.etag)
        return True

    async def _appended(
        self, session: Session, place: Place, message: NewMessage, patch: dict[str, Any]
    ) -> _Appended:
        marker = session._storage_update_marker  # noqa: SLF001  where ADK's own services have it
        while True:
            etag = marker or await self._current(session, place)
            try:
                answer = await self._conversations.append(place, message, patch, etag=etag)
            except AlreadyExists:
                raise other_event(message) from None
            except (EtagMismatch, InvalidArgument) as error:
                is_repeated = isinstance(error, InvalidArgument) and is_of(error, "request_id")
                if isinstance(error, InvalidArgument) and not is_repeated:
                    raise
                conversation = await self._require(session, place)
                moment = await self._conversations.moment_of(place, message)
                if moment is not None:  # by a call before
                    is_last = conversation.head_message_id == message.message_id
                    return _Appended(conversation.etag if is_last else etag, moment, is_late=True)
                if is_repeated:
                    raise
                if marker:
                    raise StaleSessionError(_STALE) from None
            else:
                moment = history.moment_of(answer.messages[0])
                return _Appended(answer.conversation.etag, moment, is_late=False)

    async def _current(self, session: Session, place: Place) -> str:
        """The etag for a session that has none, judged as ADK's own services judge it."""
        conversation = await self._require(session, place)
        if history.update_time_of(conversation) > session.last_update_time:
            last = history.BEGINNING_ID
            if session.events:
                last = history.message_id_of(session.events[-1].id)
            if conversation.head_message_id != last:
                raise StaleSessionError(_STALE)
        return conversation.etag

    async def _require(self, session: Session, place: Place) -> Conversation:
        conversation = await self._conversations.read(place)
        if conversation is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        return conversation


def _mark(session: Session, etag: str) -> None:
    session._storage_update_marker = etag  # noqa: SLF001  where ADK's own services have it


def _session_of(app_name: str, conversation: Conversation) -> Session:
    session = Session(
        app_name=app_name,
        user_id=unescaped(conversation.session_id.rpartition(":")[2]),
        id=unescaped(conversation.conversation_id.rpartition(":")[2]),
        last_update_time=history.update_time_of(conversation),
    )
    _mark(session, conversation.etag)
    return session


class MemorydMemoryService(ClosedOnExit, BaseMemoryService):
    """What is remembered of the users of apps, for any event loop: a memory a text event.

    Every method may raise what the clients of memoryd raise: `memoryd.client.MemorydError`, and
    ValueError for names that are too long and metadata that is no JSON.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        prefix: str = "adk",
        limit: int = 10,
        min_relevance: float = 0.3,
        timeout: float | None = DEFAULT_TIMEOUT,
        **connection: Any,
    ) -> None:
        """Prepare the service; the first call connects.

        `target`, `prefix`, `timeout`, `connection`: as MemorydSessionService has them. `limit`: how
        many memories a search finds at most, 1-100. `min_relevance`: how sure recall must be that
        one bears on the query, 0.0-1.0.
        """
        self._names = _Names(prefix_of(prefix))
        self._limit = limit
        self._min_relevance = min_relevance
        self._loop = background()

        async def made() -> tuple[grpc.aio.Channel, Memories]:
            channel = open_channel(target, **connection)
            memories = MemoryClient(channel=channel, timeout=timeout)
            return channel, Memories(memories, SessionClient(channel=channel, timeout=timeout))

        self._channel, self._memories = self._loop.run(made())

    async def add_session_to_memory(self, session: Session) -> None:
        """Remember the texts of a session's events.

        Nothing changes of what is remembered, nor of what was and has been deleted.
        """
        await self.add_events_to_memory(
            app_name=session.app_name,
            user_id=session.user_id,
            events=session.events,
            session_id=session.id,
        )

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember the texts of events, as `add_session_to_memory` does.

        `custom_metadata`: JSON that each memory has besides.
        """
        place = self._names.user(app_name, user_id)
        new = remembered.of_events(
            place,
            events,
            session_id=session_id or "",
            episode=self._names.conversation(session_id) if session_id else "",
            custom_metadata=custom_metadata or {},
        )
        prefix = remembered.key_of_event(session_id or "", "")
        if new:
            await self._loop.wait(self._memories.add_unknown(place, new, prefix))

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember the texts of entries; one that has the `id` of another takes its place.

        `custom_metadata`: JSON that each memory has besides.
        """
        place = self._names.user(app_name, user_id)
        new = remembered.of_entries(place, memories, custom_metadata or {})
        await self._loop.wait(self._memories.add(place, new))

    async def search_memory(
        self, *, app_name: str, user_id: str, query: str
    ) -> SearchMemoryResponse:
        """Find what bears on a query, the best first. A query without a word finds nothing."""
        query = remembered.within_limit(query)
        if not query:
            return SearchMemoryResponse()
        retrieval = self._memories.client.retrieve(
            self._names.user(app_name, user_id),
            query,
            limit=self._limit,
            min_relevance=self._min_relevance,
        )
        found = [each.memory for each in (await self._loop.wait(retrieval)).results]
        return SearchMemoryResponse(memories=[remembered.entry_of(memory) for memory in found])

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Delete what has the `id` of an entry that was found; it is no error if nothing has."""
        if memory_id:
            place = self._names.user(app_name, user_id)
            await self._loop.wait(self._memories.delete(place, memory_id))

    async def close(self) -> None:
        """Close the connection; this ends calls under way."""

        async def closed() -> None:
            await self._memories.close()
            await self._channel.close()

        await self._loop.wait(closed())


# By URI


def session_service(uri: str, **options: Any) -> MemorydSessionService:
    """The session service that a URI names: `memoryd://host:port`, with `?prefix=…&tls=true`.

    Without a host the variable MEMORYD_TARGET counts. `options`: arguments of the class.

    Raises ValueError for a URI that has anything else.
    """
    return MemorydSessionService(**_given_by(uri, options))


def memory_service(uri: str, **options: Any) -> MemorydMemoryService:
    """The memory service that a URI names, as of `session_service`."""
    return MemorydMemoryService(**_given_by(uri, options))


def register() -> None:
    """Have ADK take `memoryd://host:port` as the URI of a session service and a memory service.

    Call it in the `services.py` beside your agents.
    """
    from google.adk.cli.service_registry import get_service_registry  # noqa: PLC0415  of the command line alone

    registry = get_service_registry()
    registry.register_session_service(SCHEME, session_service)
    registry.register_memory_service(SCHEME, memory_service)


def _given_by(uri: str, options: Mapping[str, Any]) -> dict[str, Any]:
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise ValueError("the URI names a user or a key: leave it out, and set MEMORYD_API_KEY")
    if parts.scheme != SCHEME or parts.path.strip("/") or parts.fragment:
        raise ValueError(f"expected {SCHEME}://host:port as a URI, not {uri!r}")
    if parts.netloc and parts.port is None:
        raise ValueError(f"{uri!r} names no port; say {SCHEME}://{parts.netloc}:50051")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.keys() - {"prefix", "tls"} or query.get("tls", "true") != "true":
        raise ValueError(f"{uri!r}: expected prefix=… and tls=true alone after the question mark")
    # ADK also tells where the agents lie.
    given = {name: value for name, value in options.items() if name != "agents_dir"}
    if "tls" in query:
        given["tls"] = True
    if "prefix" in query:
        given["prefix"] = query["prefix"]
    return {"target": parts.netloc or None, **given}
