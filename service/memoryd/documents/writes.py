"""What a transaction may be asked to do with documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memoryd.domain.documents import NewDocument

if TYPE_CHECKING:
    from memoryd.domain.documents import Document, DocumentName, Removal
    from memoryd.domain.records import Session

BYTES_A_WEIGHT = 8_192
"""Of bodies and search texts, what counts as much of a transaction as one small write."""

MOVE_WEIGHT = 500
"""What a move of a namespace counts as, whose documents are not counted before."""


@dataclass(frozen=True, slots=True)
class WriteDocuments:
    """Put and delete documents of one session, in order: all of them, or none."""

    session: Session
    items: tuple[NewDocument | Removal, ...]
    request_id: str = ""
    fingerprint: str = ""

    @property
    def makes_session(self) -> bool:
        return any(isinstance(item, NewDocument) for item in self.items)

    @property
    def weight(self) -> int:
        return sum(map(_weight, self.items))

    @property
    def heaviest(self) -> int:
        """The weight of the heaviest document."""
        return max(map(_weight, self.items), default=0)


@dataclass(frozen=True, slots=True)
class ExpireDocument:
    """Remove a document whose time has come, if it has."""

    session: Session
    name: DocumentName

    makes_session = False
    weight = 1


@dataclass(frozen=True, slots=True)
class OnNames:
    """Something to do with documents, as far as they are there."""

    session: Session
    names: tuple[DocumentName, ...]

    makes_session = False

    @property
    def weight(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class RemoveDocuments(OnNames):
    """Delete documents."""


@dataclass(frozen=True, slots=True)
class RefreshDocuments(OnNames):
    """Have documents that have a ttl live for it from now."""


@dataclass(frozen=True, slots=True)
class MoveDocuments:
    """Give a document another name; or, where the names have no key, all that a namespace holds."""

    session: Session
    source: DocumentName
    target: DocumentName

    makes_session = False

    @property
    def weight(self) -> int:
        return 1 if self.source.key else MOVE_WEIGHT


DocumentWrite = WriteDocuments | ExpireDocument | RemoveDocuments | RefreshDocuments | MoveDocuments
DocumentsOutcome = tuple["Document | None", ...]
"""Of WriteDocuments, one for each item, None for a removal; of RemoveDocuments and
RefreshDocuments, one for each name, None where nothing was to be done; of MoveDocuments, those that
were moved, without bodies; of the other nothing."""


def _weight(item: NewDocument | Removal) -> int:
    if not isinstance(item, NewDocument):
        return 1
    size = len(item.body) + sum(map(len, item.search_texts))
    return 1 + size // BYTES_A_WEIGHT
