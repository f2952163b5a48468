"""Every call of many callers, and the events of watchers."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from google.protobuf.message import Message

from memoryd.v1 import memory_pb2 as pb

from .appends import Appends
from .conversation_faults import ConversationWatch, TalkJournal
from .document_faults import DocumentJournal, DocumentWatch
from .journals import Events
from .promises import IN_DOUBT
from .stored import Stored

TOO_MANY_WRITES = "writes are waiting, more than is soon done"
"""In what a server says that has more waiting than it writes in a second at its pace. A move of a
namespace counts as hundreds, so that on a slow machine two of them are enough."""

Kind = Literal["documents", "conversations"]
"""What calls are about whose callers keep journals."""


@dataclass(slots=True)
class Call:
    """One attempt by a caller."""

    caller: str
    method: str
    request: Any
    started: float
    """Seconds of a monotonic clock."""
    ended: float | None = None
    """None if it has not ended."""
    answer: Any = None
    """None if there was none."""
    code: str | None = None
    """The code of the refusal."""
    details: bytes = b""
    """The encoded `google.rpc.Status` of the refusal."""

    @property
    def session_id(self) -> str:
        if self.method == "UpdateMemory":
            return str(self.request.memory.session_id)
        return str(self.request.session_id)

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is unknown if it was committed."""
        return self.answer is None and (self.code is None or self.code in IN_DOUBT)


class Watch(Events):
    """Of memories."""

    def newest_of(self, stored: Stored) -> int:
        """The revision of the last event that it has to receive."""
        return max(stored.of_memories.get(self.session_id, ()), default=0)


class History:
    """All calls of callers and events of watchers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[Call] = []
        self.watches: list[Watch] = []
        self.document_journals: list[DocumentJournal] = []
        self.document_watches: list[DocumentWatch] = []
        self.talk_journals: list[TalkJournal] = []
        self.appends: list[Appends] = []
        self.conversation_watches: list[ConversationWatch] = []
        self.codes: Counter[str] = Counter()
        """The number of refusals by code, of calls of any kind."""
        self._last_texts: dict[str, str] = {}
        """What the last refusal said, by code, but for those of writes that a slow machine would
        not soon have done."""
        self.acknowledged = 0
        """The number of answered calls about memories."""
        self.answered: Counter[Kind] = Counter()
        """The number of answered calls of other kinds."""
        self.doubted: Counter[Kind] = Counter()
        """The number of calls of other kinds that are in doubt."""
        self.earlier = 0
        """The number of calls not kept."""
        self._longest = 0.0
        self._clock = clock

    async def call(self, caller: str, stub: object, request: Message, timeout: float) -> Call:
        """Make the call of a request and record it; a refusal does not raise."""
        method = _METHODS[type(request)]
        call = Call(caller, method, request, self._clock())
        self.calls.append(call)
        try:
            self.end(call, answer=await getattr(stub, method)(request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            call.details = details_of(error)
            self.end(call, code=self._heard(error))
        return call

    def end(self, call: Call, *, answer: Any = None, code: str | None = None) -> None:
        """Record the end of a call: its answer, or the code of the refusal."""
        call.ended, call.answer, call.code = self._clock(), answer, code
        self.acknowledged += answer is not None
        if code is not None:
            self.codes[code] += 1

    def add(self, other: History) -> None:
        """Add the counts of another history without keeping its calls."""
        self.earlier += other.count
        self.acknowledged += other.acknowledged
        self.answered += other.answered
        self.codes += other.codes
        self._last_texts |= other._last_texts
        self._longest = max(self._longest, other.longest_unavailability())

    def _heard(self, refusal: grpc.aio.AioRpcError) -> str:
        """Keep what a refusal says; its code."""
        code: str = refusal.code().name
        text = refusal.details() or ""
        if TOO_MANY_WRITES not in text:
            self._last_texts[code] = text
        return code

    def refusals_besides(self, expected: Collection[str]) -> dict[str, str]:
        """The codes of refusals that are not expected, each with what the last of it said.

        Too many writes for the pace of a slow machine may always be refused.
        """
        return {code: text for code, text in self._last_texts.items() if code not in expected}

    @property
    def in_doubt(self) -> int:
        """The number of refusals that leave a call in doubt."""
        return sum(self.codes[code] for code in IN_DOUBT)

    @property
    def count(self) -> int:
        """The number of calls made."""
        return self.earlier + len(self.calls)

    def now(self) -> float:
        """The current time on the calls' clock."""
        return self._clock()

    def end_of(self, kind: Kind, refusal: grpc.aio.AioRpcError | None) -> None:
        """Record the end of a call of another kind; without a refusal it was answered."""
        if refusal is None:
            self.answered[kind] += 1
            return
        code = self._heard(refusal)
        self.codes[code] += 1
        self.doubted[kind] += code in IN_DOUBT

    def document_journal(self, caller: str, session_id: str) -> DocumentJournal:
        """Record a new caller that keeps documents."""
        journal = DocumentJournal(caller, session_id)
        self.document_journals.append(journal)
        return journal

    def watch_documents(self, session_id: str) -> DocumentWatch:
        """Record a new watcher of documents."""
        watch = DocumentWatch(session_id)
        self.document_watches.append(watch)
        return watch

    def talk_journal(self, caller: str, session_id: str) -> TalkJournal:
        """Record a new caller that holds conversations of its own."""
        journal = TalkJournal(caller, session_id)
        self.talk_journals.append(journal)
        return journal

    def shared_conversations(self, caller: str, session_id: str) -> Appends:
        """Record a new caller that appends to conversations of others, too."""
        appends = Appends(caller, session_id)
        self.appends.append(appends)
        return appends

    def watch_conversations(self, session_id: str) -> ConversationWatch:
        """Record a new watcher of conversations."""
        watch = ConversationWatch(session_id)
        self.conversation_watches.append(watch)
        return watch

    def watch(self, session_id: str, start_revision: int = 0) -> Watch:
        """Record a new watcher."""
        watch = Watch(session_id, start_revision)
        self.watches.append(watch)
        return watch

    def longest_unavailability(self) -> float:
        """The longest time in seconds between two answers."""
        ends = sorted(call.ended for call in self.calls if call.answer is not None and call.ended)
        gaps = (later - earlier for earlier, later in itertools.pairwise(ends))
        return max(gaps, default=self._longest)


def details_of(error: grpc.aio.AioRpcError) -> bytes:
    """The encoded `google.rpc.Status` of a refusal; empty where there is none."""
    trailers = dict(error.trailing_metadata() or ())
    details = trailers.get("grpc-status-details-bin", b"")
    return details if isinstance(details, bytes) else details.encode()


_METHODS = {
    pb.StoreMemoryRequest: "StoreMemory",
    pb.BatchStoreMemoriesRequest: "BatchStoreMemories",
    pb.UpdateMemoryRequest: "UpdateMemory",
    pb.DeleteMemoryRequest: "DeleteMemory",
    pb.GetMemoryRequest: "GetMemory",
    pb.ListMemoriesRequest: "ListMemories",
    pb.RetrieveMemoriesRequest: "RetrieveMemories",
}


def up_to(history: History, moment: float) -> History:
    """What callers knew at a moment; calls that had not ended by then are in doubt."""
    known = History()
    for call in history.calls:
        has_ended = call.ended is not None and call.ended <= moment
        known.calls.append(
            call if has_ended else dataclasses.replace(call, ended=None, answer=None, code=None)
        )
    known.document_journals = [journal.up_to(moment) for journal in history.document_journals]
    known.talk_journals = [journal.up_to(moment) for journal in history.talk_journals]
    known.appends = [appends.up_to(moment) for appends in history.appends]
    return known
