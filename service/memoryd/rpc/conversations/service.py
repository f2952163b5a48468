"""ConversationService: a row for each method; each handler takes a record and answers a message."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from memoryd.conversations.listing import position_of
from memoryd.domain.audit import Audited
from memoryd.domain.principals import Scope
from memoryd.domain.records import Change
from memoryd.rpc.answer_size import fill_page
from memoryd.rpc.conversations import messages as convert
from memoryd.rpc.conversations import plain, requests
from memoryd.rpc.methods import BULK_WEIGHT, SEARCH_WEIGHT, WRITE_WEIGHT, Method
from memoryd.v1 import conversation_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime

    from memoryd.conversations.store import ConversationStore
    from memoryd.conversations.writes import (
        AppendMessages,
        ConversationWrite,
        DeleteConversation,
        Named,
        PopMessages,
    )
    from memoryd.domain.conversations import ConversationEvent, Message
    from memoryd.rpc.answer_size import LargeAnswers
    from memoryd.rpc.call import Call
    from memoryd.rpc.conversations.requests import Listing, MessageListing, Watch
    from memoryd.sessions.feed import ChangeFeed


class ConversationService:
    def __init__(
        self,
        store: ConversationStore,
        feed: ChangeFeed[ConversationEvent],
        answers: LargeAnswers,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._feed = feed
        self._answers = answers
        self._clock = clock

    def methods(self) -> Mapping[str, Method[Any]]:
        """The table of this service."""
        read, in_all = Scope.CONVERSATIONS_READ, Audited.IN_ALL
        parser = requests.ConversationParser(self._clock)

        def writing(parse: Callable[..., Any], handle: Any, **more: Any) -> Method[Any]:
            row = {"weight": WRITE_WEIGHT, "waits_for_commit": True, **more}
            return Method(parse, handle, Scope.CONVERSATIONS_WRITE, in_all, **row)

        return {
            "CreateConversation": writing(parser.create, self.write),
            "GetConversation": Method(
                requests.name, self.get, read, in_all, is_plain=plain.is_plain_name
            ),
            "UpdateConversation": writing(parser.change, self.write),
            "ListConversations": Method(
                requests.listing, self.list_page, read, in_all, weight=SEARCH_WEIGHT
            ),
            "DeleteConversation": Method(
                requests.delete,
                self.delete,
                Scope.CONVERSATIONS_WRITE,
                Audited.AFTER,
                weight=BULK_WEIGHT,
                waits_for_commit=True,
            ),
            "AppendMessages": writing(
                requests.append,
                self.append,
                check_size=requests.check_messages,
                is_plain=plain.is_plain_append,
            ),
            "ListMessages": Method(
                requests.messages, self.list_messages, read, in_all, weight=SEARCH_WEIGHT
            ),
            "PopMessages": writing(requests.pop, self.pop),
            "RewriteMessages": writing(
                requests.rewrite, self.append, check_size=requests.check_messages
            ),
            "ForkConversation": writing(requests.fork, self.write),
            "SetHead": writing(requests.move_head, self.write),
            "SetSummary": writing(requests.summarise, self.write),
            "WatchConversations": Method(requests.watch, self.watch, read, in_all),
            "ExportMessages": Method(
                requests.name,
                self.export,
                Scope.MEMORIES_EXPORT,
                Audited.BEFORE,
                weight=BULK_WEIGHT,
            ),
        }

    async def write(self, write: ConversationWrite, call: Call) -> conversation_pb2.Conversation:
        del call
        return convert.conversation_message(await self._store.write(write))

    async def get(self, named: Named, call: Call) -> conversation_pb2.Conversation:
        row = await self._store.get(
            named.session,
            named.conversation_id,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        return convert.conversation_message(row)

    async def list_page(
        self, listing: Listing, call: Call
    ) -> conversation_pb2.ListConversationsResponse:
        page = await self._store.page(
            listing.whose,
            listing.labels,
            after=listing.after,
            size=listing.size,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        answer = conversation_pb2.ListConversationsResponse()
        next_after = fill_page(
            answer.conversations,
            page.conversations,
            convert.conversation_message,
            position_of=lambda row: position_of(row, listing.whose),
            after_all=page.next_after,
        )
        if next_after is not None:
            answer.next_page_token = listing.token_at(next_after)
        return answer

    async def delete(
        self, write: DeleteConversation, call: Call
    ) -> conversation_pb2.DeleteConversationResponse:
        del call
        await self._store.delete(write)
        return conversation_pb2.DeleteConversationResponse()

    async def append(self, write: AppendMessages, call: Call) -> bytes:
        del call
        appended = await self._store.append(write)
        make = partial(convert.append_response, appended)
        return await self._answers.make(_size_of(appended.messages), make)

    async def pop(self, write: PopMessages, call: Call) -> bytes:
        del call
        popped = await self._store.pop(write)
        return await self._answers.make(_size_of(popped), partial(convert.pop_response, popped))

    async def list_messages(self, listing: MessageListing, call: Call) -> bytes:
        page = await self._store.messages(
            listing.of.session,
            listing.of.conversation_id,
            listing.window,
            position=listing.position,
            size=listing.size,
            now=self._clock(),
            timeout=call.time_remaining(),
        )
        token = "" if page.next_position is None else listing.token_at(page.next_position)
        make = partial(convert.window_response, page, token)
        return await self._answers.make(_size_of(page.messages), make)

    async def watch(
        self, watch: Watch, call: Call
    ) -> AsyncIterator[conversation_pb2.WatchConversationsResponse]:
        del call
        session, conversation_id, _ = watch.of
        async with aclosing(self._feed.events(session, watch.start_revision)) as events:
            async for event in events:
                is_of_all = event.change is Change.PURGED
                if is_of_all or conversation_id in ("", event.conversation_id):
                    yield convert.event_message(session, event)

    async def export(self, named: Named, call: Call) -> AsyncIterator[bytes]:
        last = None
        async for conversation, messages in self._store.export(
            named.session, named.conversation_id, now=self._clock(), timeout=call.time_remaining
        ):
            is_first = conversation.conversation_id != last
            last = conversation.conversation_id
            call.counts("exported_messages", len(messages))
            make = partial(convert.export_response, conversation, messages, is_first=is_first)
            yield await self._answers.make(_size_of(messages), make)


def _size_of(messages: Sequence[Message]) -> int:
    """About what messages take of an answer, in bytes."""
    return sum(message.size for message in messages)
