"""What the rest of the house asks of the store of conversations."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

from memoryd.conversations import export, promotion, reading
from memoryd.conversations.listing import read_page as read_list
from memoryd.conversations.windows import MessagePage, read_conversation, read_page
from memoryd.domain.errors import ConversationNotFound
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from memoryd.conversations.windows import Position, Window
    from memoryd.conversations.writes import (
        Appended,
        AppendMessages,
        ConversationOutcome,
        ConversationWrite,
        DeleteConversation,
        PopMessages,
        Promoted,
        PromoteMessages,
    )
    from memoryd.database.engine import Database
    from memoryd.domain.conversations import Conversation, ConversationPage, Message
    from memoryd.domain.sessions import TenantRange
    from memoryd.sessions.replica import SessionReads

ATTEMPTS = 5
"""How often a window is read whose messages are removed meanwhile."""

LARGE_READS = 4
"""How many reads of larger bodies are under way at once."""


class ConversationStore:
    """The conversations of all sessions. `now` is the caller's own time; `timeout` is in seconds.

    Every method raises what Database raises; those that write also what
    `ConversationChanges.apply` raises.
    """

    def __init__(
        self,
        database: Database,
        reads: SessionReads,
        submit: Callable[[ConversationWrite], Awaitable[ConversationOutcome]],
    ) -> None:
        """`submit` has a write committed with others."""
        self._database = database
        self._reads = reads
        self._submit = submit
        self._large = asyncio.Semaphore(LARGE_READS)

    async def write(self, write: ConversationWrite) -> Conversation:
        """Make or change a conversation; give it."""
        return cast("Conversation", await self._submit(write))

    async def append(self, write: AppendMessages) -> Appended:
        """Give the messages as they are kept, and the conversation as of that commit."""
        return cast("Appended", await self._submit(write))

    async def pop(self, write: PopMessages) -> tuple[Message, ...]:
        """Give what was removed, the oldest first."""
        return cast("tuple[Message, ...]", await self._submit(write))

    async def promote(self, write: PromoteMessages) -> Promoted:
        """Store memories of messages.

        Raises also what storing them raises: InvalidRequest, QuotaExceeded.
        """
        return cast("Promoted", await self._submit(write))

    async def delete(self, write: DeleteConversation) -> None:
        """Delete a conversation; an embedded database's files hold nothing of it any more."""
        await self._submit(write)
        await self._database.scrub()

    async def get(
        self, session: Session, conversation_id: str, *, now: datetime, timeout: float | None
    ) -> Conversation:
        """Raises ConversationNotFound."""
        dialect = self._database.dialect

        def body(connection: Connection) -> Conversation:
            return read_conversation(connection, dialect, session, conversation_id, now, full=True)

        return await self._reads.read(session, body, timeout=timeout)

    async def page(
        self,
        whose: Session | TenantRange,
        labels: Mapping[str, str],
        *,
        after: str,
        size: int,
        now: datetime,
        timeout: float | None,
    ) -> ConversationPage:
        """At most `size` conversations behind a position, the last updated first."""
        body = partial(read_list, whose=whose, labels=labels, after=after, size=size, now=now)
        if isinstance(whose, Session):
            return await self._reads.read(whose, body, timeout=timeout)
        return await self._database.read(body, tenants=(whose.tenant,), timeout=timeout)

    async def messages(
        self,
        session: Session,
        conversation_id: str,
        window: Window,
        *,
        position: Position | None,
        size: int,
        now: datetime,
        timeout: float | None,
    ) -> MessagePage:
        """At most `size` messages of a window.

        Raises ConversationNotFound and MessageNotFound.
        """
        dialect = self._database.dialect

        def body(connection: Connection) -> MessagePage:
            full = window.with_summary and position is None
            for _ in range(ATTEMPTS):
                row = read_conversation(
                    connection, dialect, session, conversation_id, now, full=full
                )
                page = read_page(connection, dialect, row, window, position=position, size=size)
                if page.is_whole or position is not None:
                    break
            return page

        page = await self._reads.read(session, body, timeout=timeout)
        return page._replace(messages=await self._completed(session, page.messages, timeout))

    async def to_promote(
        self,
        session: Session,
        conversation_id: str,
        message_ids: Sequence[str],
        *,
        now: datetime,
        timeout: float | None,
    ) -> Sequence[Message]:
        """The messages with some ids; without ids, the next ones that were not gone over.

        Raises ConversationNotFound, MessageNotFound, and InvalidRequest where they are too large.
        """
        named = (self._database.dialect, session, conversation_id, now)

        def body(connection: Connection) -> Sequence[Message]:
            if message_ids:
                return promotion.read_named(connection, *named, message_ids=message_ids)
            return promotion.read_since_last(connection, *named)

        found = await self._reads.read(session, body, timeout=timeout)
        return await self._completed(session, found, timeout)

    async def _completed(
        self, session: Session, page: Sequence[Message], timeout: float | None
    ) -> Sequence[Message]:
        """A page with the bodies that it lacks; what is gone is left out."""
        lacking = [message.place for message in page if message.body is None]
        if not lacking:
            return page
        dialect = self._database.dialect
        async with self._large:
            found = await self._reads.read(
                session,
                lambda c: reading.messages_at(c, dialect, session, lacking),
                timeout=timeout,
            )
        return _completed(page, found)

    async def export(
        self,
        session: Session,
        conversation_id: str,
        *,
        now: datetime,
        timeout: Callable[[], float | None],
    ) -> AsyncIterator[tuple[Conversation, Sequence[Message]]]:
        """Give all messages of a conversation, or of all of a session where the id is empty.

        Part by part; a conversation without messages has one part. `timeout` gives what is left.
        Raises ConversationNotFound where the one that is named is absent.
        """
        if conversation_id:
            async for part in self._parts(session, conversation_id, now, timeout):
                yield part
            return
        after = ""
        while True:
            read = partial(export.read_ids, session=session, after=after, now=now)
            ids = await self._reads.read(session, read, timeout=timeout())
            for after in ids:
                with suppress(ConversationNotFound):  # it was deleted meanwhile
                    async for part in self._parts(session, after, now, timeout):
                        yield part
            if len(ids) < export.IDS_AT_ONCE:
                return

    async def _parts(
        self,
        session: Session,
        conversation_id: str,
        now: datetime,
        timeout: Callable[[], float | None],
    ) -> AsyncIterator[tuple[Conversation, Sequence[Message]]]:
        dialect = self._database.dialect
        content = await self._reads.read(
            session,
            lambda c: export.read_content(c, dialect, session, conversation_id, now),
            timeout=timeout(),
        )
        position = export.first_position(content)
        if position is None:
            yield content.conversation, ()
        while position is not None:
            read = partial(export.read_part, dialect=dialect, content=content, position=position)
            async with self._large:
                part = await self._reads.read(session, read, timeout=timeout())
            yield content.conversation, part.messages
            position = part.next_position


def _completed(page: Sequence[Message], large: Sequence[Message]) -> list[Message]:
    """A page with the bodies that were read by themselves; what is gone is left out."""
    by_id = {(message.place, message.message_id): message for message in large}
    complete = (m if m.body is not None else by_id.get((m.place, m.message_id)) for m in page)
    return [message for message in complete if message is not None]
