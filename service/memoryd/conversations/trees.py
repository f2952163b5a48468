"""Trees of messages in one transaction: what was read of them, and what was added to them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select

from memoryd.conversations import rows
from memoryd.conversations.branches import Branches
from memoryd.database import statements
from memoryd.database.dialect import Insertion, columns_of
from memoryd.database.tables import conversation_branches, messages
from memoryd.domain.records import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from memoryd.conversations.branches import Branch
    from memoryd.database.dialect import Dialect
    from memoryd.domain.conversations import Conversation, Head, Message, Place


class Tree(NamedTuple):
    """Names a tree of messages."""

    session: Session
    number: int


_END = select(func.max(messages.c.depth)).where(
    *(messages.c[name] == bindparam(name) for name in ("tenant", "session_id", "branch"))
)


class Trees:
    """Trees that the transaction has to do with. Their sessions are locked."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self._by_id: defaultdict[Tree, dict[str, list[Message]]] = defaultdict(dict)
        """Messages by their ids as far as these were looked for; the added ones among them."""
        self._branches: dict[Tree, Branches] = {}
        self._added: list[tuple[Tree, Message]] = []
        self._added_branches: list[tuple[Tree, Branch]] = []

    def look_for(self, wanted: Iterable[tuple[Tree, str]]) -> None:
        """Read the messages with some ids, unless they were looked for before."""
        missing = {(tree, i) for tree, i in wanted if i not in self._by_id[tree]}
        if not missing:
            return
        for tree, message_id in missing:
            self._by_id[tree][message_id] = []
        keys = sorted((*tree.session, tree.number, message_id) for tree, message_id in missing)
        bound = self._dialect.bind(rows.ID_KEY, keys)
        for row in statements.fetch(self._connection, rows.messages_by_id(self._dialect), bound):
            *values, number = row
            message = rows.message_of(values)
            tree = Tree(Session(row[0], row[1]), number)
            self._by_id[tree][message.message_id].append(message)

    def find(self, row: Conversation, message_id: str) -> Message | None:
        """The message with an id, of any branch of a conversation."""
        tree = tree_of(row)
        self.look_for([(tree, message_id)])
        found = self._by_id[tree][message_id]
        return next((message for message in found if self.has(row, message.place)), None)

    def has(self, row: Conversation, place: Place) -> bool:
        """Whether a message that is there is one of a conversation."""
        return self.leads_to(row, row.head.place, place) or any(
            self.leads_to(row, tip.place, place) for tip in row.tips
        )

    def leads_to(self, row: Conversation, place: Place, wanted: Place) -> bool:
        """Whether the way back from a message passes another one, or begins with it."""
        if place.branch == wanted.branch:
            return wanted.depth <= place.depth
        return self.branches(tree_of(row)).leads_to(place, wanted)

    def shared(self, row: Conversation, place: Place, other: Place) -> Place:
        """The last message that the ways back from two messages have in common."""
        if place.branch == other.branch:
            return min(place, other)
        return self.branches(tree_of(row)).shared(place, other)

    def branches(self, tree: Tree) -> Branches:
        """All of a tree."""
        if tree not in self._branches:
            bound = self._dialect.bind(rows.TREE_KEY, [(*tree.session, tree.number)])
            found = statements.fetch(self._connection, rows.branches_by_tree(self._dialect), bound)
            added = (branch for of, branch in self._added_branches if of == tree)
            self._branches[tree] = Branches([*map(rows.branch_of, found), *added])
        return self._branches[tree]

    def head_at(self, row: Conversation, message: Message) -> Head:
        """A message as the head of a conversation, which is to append to no branch of others."""
        branch = self.branches(tree_of(row)).named(message.place.branch)
        return message.head(branch.first_depth, is_end=self.is_end(row, message.place))

    def is_end(self, row: Conversation, place: Place) -> bool:
        """Whether what follows a message goes on its branch, if the conversation appends it."""
        tree = tree_of(row)
        if not place.branch or self.branches(tree).named(place.branch).owner != row.number:
            return False
        added = (m.place.depth for of, m in self._added if m.place.branch == place.branch)
        named = {**row.session._asdict(), "branch": place.branch}
        stored = self._connection.execute(_END, named).scalar_one() or 0
        return max(added, default=0) <= place.depth and stored <= place.depth

    def add(self, tree: Tree, message: Message) -> None:
        self._by_id[tree].setdefault(message.message_id, []).append(message)
        self._added.append((tree, message))

    def add_branch(self, tree: Tree, branch: Branch) -> None:
        if tree in self._branches:
            self._branches[tree].add(branch)
        self._added_branches.append((tree, branch))

    def forget(self, tree: Tree) -> None:
        """Read again what is asked for of a tree: messages of it were deleted."""
        self._by_id.pop(tree, None)
        self._branches.pop(tree, None)

    def insertions(self) -> list[Insertion]:
        """Give the rows that were added, once."""
        branches = [
            rows.branch_values(tree.session, tree.number, branch)
            for tree, branch in self._added_branches
        ]
        added = [
            rows.message_values(tree.session, tree.number, message) for tree, message in self._added
        ]
        self._added, self._added_branches = [], []
        pairs: list[tuple[Any, list[dict[str, Any]]]] = [
            (conversation_branches, branches),
            (messages, added),
        ]
        return [Insertion(table, columns_of(new), {}) for table, new in pairs if new]


def tree_of(row: Conversation) -> Tree:
    return Tree(row.session, row.tree)
