"""By what the rows that some writes depend on are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoryd.memories.writes import Delete, Expire, Retire, Rollback, Store, Undelete, Update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memoryd.domain.records import Memory, NewMemory, Session
    from memoryd.memories.known_sessions import KnownSession
    from memoryd.memories.writes import Write


class Wanted:
    """Keys of look-ups, each in its statement's order of columns."""

    def __init__(
        self, writes: Sequence[Write], known: Mapping[Session, KnownSession | None]
    ) -> None:
        """`known` says what sessions may have; None where that is unknown."""
        self.ids: set[tuple[str, str, str]] = set()
        self.contents: set[tuple[str, str, str, str]] = set()
        self.keys: set[tuple[str, str, str]] = set()
        self.versions: set[tuple[str, str, int]] = set()
        self.requests: set[tuple[str, str, str]] = set()
        for write in writes:
            match write:
                case Store(items):
                    for item in items:
                        self._add_store(item, known[item.session])
                case Update(edit):
                    self.ids.add((*edit.session, edit.memory_id))
                case Delete(session, _, _, key) if key:
                    self.keys.add((*session, key))
                case Rollback(session, memory_id, revision):
                    self.ids.add((*session, memory_id))
                    self.versions.add((*session, revision))
                case Delete() | Undelete() | Expire() | Retire():
                    self.ids.add((*write.session, write.memory_id))

    def add_holder(self, memory: Memory | NewMemory) -> None:
        """Also look up which memory has this one's key, or content."""
        if memory.key is None:
            kind = memory.content_type.value
            self.contents.add((*memory.session, kind, memory.content_hash))
        else:
            self.keys.add((*memory.session, memory.key))

    def _add_store(self, item: NewMemory, known: KnownSession | None) -> None:
        if known is None or known.may_hold(item.identity):
            self.add_holder(item)
        request_id = item.request_id
        if request_id and (known is None or known.may_have_answered(request_id)):
            self.requests.add((*item.session, request_id))
