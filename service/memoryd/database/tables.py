"""One schema for both databases. `migrations/` leads there; a test finds any difference.

Every unique key of what belongs to sessions begins with the shard key `(tenant, session_id)`. The
tables of the tools' configuration belong to no session: a few rows a tenant.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from memoryd.database.types import CODE_POINTS, CompactTime, UtcDateTime, by_code_point

schema = MetaData()

UNMOVED = "unmoved"
"""Key in a table's `info`: whether an export leaves its rows out, since they belong to one
installation: credentials open no other."""

DERIVED = "derived"
"""Key in a table's `info`: whether its rows can be made again, so that no export has them."""

ONLY_ON = "only_on"
"""Key in an index's `info`: the one kind of database that has it."""
RANKED = "deleted_at IS NULL AND eviction_rank IS NOT NULL"
"""Which memories the indexes for eviction have."""


def index_names(database: str) -> list[str]:
    """The indexes that a database has, by the name of its dialect."""
    return [
        str(index.name)
        for table in schema.tables.values()
        for index in table.indexes
        if index.info.get(ONLY_ON, database) == database
    ]


sessions = Table(
    "sessions",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    # The last one given out. Its row's lock puts the session's writers in line.
    Column("revision", BigInteger, nullable=False),
    # Before it not every purge is known any more.
    Column("horizon", BigInteger, nullable=False, server_default=text("0")),
    # Before it not every deletion of a document is known any more.
    Column("document_horizon", BigInteger, nullable=False, server_default=text("0")),
    # Raised by every transaction that counts accesses, which change no revision.
    Column("access_revision", BigInteger, nullable=False, server_default=text("0")),
    # Memories that are not deleted, expired ones included. It holds, as `updated_at` does, where
    # `counted_revision` is `revision`: servers of earlier releases raise the latter alone.
    Column("memory_count", BigInteger),
    Column("counted_revision", BigInteger),
    # Always right: earlier releases know no documents.
    Column("document_count", BigInteger, nullable=False, server_default=text("0")),
    # Before it not every deletion of a conversation is known any more.
    Column("conversation_horizon", BigInteger, nullable=False, server_default=text("0")),
    # As that of documents.
    Column("conversation_count", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", UtcDateTime),
    # Of the last change of anything in it.
    Column("updated_at", UtcDateTime),
    # What a caller has set; null where nothing is.
    Column("display_name", String(255)),
    Column("labels", JSON(none_as_null=True)),
    Column("state", JSON(none_as_null=True)),
    Column("memory_limit", Integer),
    # In microseconds.
    Column("memory_ttl", BigInteger),
    Column("memories_never_expire", Boolean),
    # The session's, when a caller last set something.
    Column("settings_revision", BigInteger),
    # Every live row that is not newer has its level and rank, for this half-life in days. Null: not
    # kept, or not yet.
    Column("ranked_revision", BigInteger),
    Column("ranked_half_life", Float),
    PrimaryKeyConstraint("tenant", "session_id", name="pk_sessions"),
    # To list sessions by code point: on PostgreSQL both have COLLATE "C", which reflection does not
    # show; SQLite's primary key has that order already.
    Index("ix_sessions_by_code_point", "tenant", "session_id", info={ONLY_ON: "postgresql"}),
    Index(
        "ix_sessions_labelled",
        "tenant",
        "session_id",
        sqlite_where=text("labels IS NOT NULL"),
        postgresql_where=text("labels IS NOT NULL"),
    ),
)

memories = Table(
    "memories",
    schema,
    Column("tenant", String(64), nullable=False, server_default=text("'default'")),
    Column("session_id", String(255), nullable=False),
    Column("id", String(36), nullable=False),
    Column("content_type", String(50), nullable=False, server_default=text("'context'")),
    Column("content", Text, nullable=False),
    Column("metadata", JSON, nullable=False, server_default=text("'{}'")),
    Column("importance", Float, nullable=False, server_default=text("0.5")),
    Column("access_count", Integer, nullable=False, server_default=text("0")),
    Column("last_accessed", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("semantic_hash", String(64), nullable=False),
    Column("expires_at", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    # Of the last change, and of the first: creation order is commit order.
    Column("revision", BigInteger, nullable=False),
    Column("created_revision", BigInteger, nullable=False),
    Column("change", String(16), nullable=False, server_default=text("'created'")),
    # The session's, when an access was last counted.
    Column("access_revision", BigInteger, nullable=False, server_default=text("0")),
    # The caller's name for it. A row that has one has a `content_hash` that is no content's.
    Column("key", by_code_point(255)),
    Column("tags", JSON, nullable=False, server_default=text("'[]'")),
    # In what order the memories of a large session are evicted: by rank among those that were
    # accessed as often. `memories/eviction.py` keeps them.
    Column("eviction_level", SmallInteger),
    Column("eviction_rank", BigInteger),
    PrimaryKeyConstraint("tenant", "session_id", "id", name="pk_memories"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_memories_session",
        ondelete="CASCADE",
    ),
    CheckConstraint("importance >= 0.0 AND importance <= 1.0", name="ck_memory_importance_range"),
    CheckConstraint("access_count >= 0", name="ck_memory_access_count_positive"),
    # Unique among live rows only: a tombstone blocks nothing.
    Index(
        "uq_memory_live_content",
        "tenant",
        "session_id",
        "content_type",
        "content_hash",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    # Rows without a key are not in it, and cost it nothing.
    Index(
        "uq_memory_live_key",
        "tenant",
        "session_id",
        "key",
        unique=True,
        sqlite_where=text("deleted_at IS NULL AND key IS NOT NULL"),
        postgresql_where=text("deleted_at IS NULL AND key IS NOT NULL"),
    ),
    Index("uq_memory_revision", "tenant", "session_id", "revision", unique=True),
    Index("uq_memory_created_revision", "tenant", "session_id", "created_revision", unique=True),
    # What has expired in a session and is not swept yet.
    Index(
        "ix_memory_session_expires_at",
        "tenant",
        "session_id",
        "expires_at",
        sqlite_where=text("deleted_at IS NULL AND expires_at IS NOT NULL"),
        postgresql_where=text("deleted_at IS NULL AND expires_at IS NOT NULL"),
    ),
    # Of sessions whose ranks are kept alone.
    Index(
        "ix_memory_eviction",
        "tenant",
        "session_id",
        "eviction_level",
        "eviction_rank",
        "revision",
        sqlite_where=text(RANKED),
        postgresql_where=text(RANKED),
    ),
    # The sweeper's, across sessions.
    Index(
        "ix_memory_expires_at",
        "expires_at",
        sqlite_where=text("deleted_at IS NULL AND expires_at IS NOT NULL"),
        postgresql_where=text("deleted_at IS NULL AND expires_at IS NOT NULL"),
    ),
    # That it is not null goes without saying, and keeps the index from those who look for live
    # rows: of a table that it takes for empty, the planner may prefer any index to theirs.
    Index(
        "ix_memory_updated_at",
        "updated_at",
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL AND updated_at IS NOT NULL"),
    ),
    Index(
        "ix_memory_deleted_at",
        "deleted_at",
        sqlite_where=text("deleted_at IS NOT NULL"),
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
)

# The tags of memories, whatever their state, to be found by.
memory_tags = Table(
    "memory_tags",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("tag", by_code_point(64), nullable=False),
    Column("id", String(36), nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "tag", "id", name="pk_memory_tags"),
    ForeignKeyConstraint(
        ["tenant", "session_id", "id"],
        ["memories.tenant", "memories.session_id", "memories.id"],
        name="fk_memory_tags_memory",
        ondelete="CASCADE",
    ),
    # By which the tags of a purged memory are found.
    Index("ix_memory_tags_id", "tenant", "session_id", "id"),
    info={DERIVED: True},
)

# What an embedder made of a memory's content, to be made again at any time.
memory_vectors = Table(
    "memory_vectors",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("id", String(36), nullable=False),
    Column("embedder", String(128), nullable=False),
    # Of the content that it was made of.
    Column("content_hash", String(64), nullable=False),
    # Floats of 16 bits, little-endian; those of its tokens behind them, if any, in 8 bits.
    Column("vector", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "id", name="pk_memory_vectors"),
    ForeignKeyConstraint(
        ["tenant", "session_id", "id"],
        ["memories.tenant", "memories.session_id", "memories.id"],
        name="fk_memory_vectors_memory",
        ondelete="CASCADE",
    ),
    info={DERIVED: True},
)

memory_history = Table(
    "memory_history",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("id", String(36), nullable=False),
    Column("change", String(16), nullable=False),
    # The memory after that change, since superseded; null where it was purged.
    Column("state", JSON(none_as_null=True)),
    Column("recorded_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "revision", name="pk_memory_history"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_memory_history_session",
        ondelete="CASCADE",
    ),
    Index("ix_memory_history_id", "tenant", "session_id", "id"),
    Index("ix_memory_history_recorded_at", "recorded_at"),
)

# What is small stands first: a body that is large lies outside the row, and so is not read with it.
documents = Table(
    "documents",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    # Each label ended by U+0001, so that text sorts as namespaces do.
    Column("namespace", CODE_POINTS, nullable=False),
    Column("key", CODE_POINTS, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("change", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("ttl_microseconds", BigInteger),
    Column("kind", String(8), nullable=False),
    # Of the body, in bytes.
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("labels", JSON, nullable=False),
    # What a search finds it by; null: nothing.
    Column("search_texts", JSON(none_as_null=True)),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "namespace", "key", name="pk_documents"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_documents_session",
        ondelete="CASCADE",
    ),
    Index("uq_document_revision", "tenant", "session_id", "revision", unique=True),
    Index(
        "ix_document_expires_at",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
    # The last updated first.
    Index("ix_document_updated_at", "tenant", "session_id", "updated_at", "revision"),
    # What a search with a query has to know.
    Index(
        "ix_document_searchable",
        "tenant",
        "session_id",
        "revision",
        sqlite_where=text("search_texts IS NOT NULL"),
        postgresql_where=text("search_texts IS NOT NULL"),
    ),
    # What has expired in a session and is not swept yet.
    Index(
        "ix_document_session_expires_at",
        "tenant",
        "session_id",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

# Versions that were superseded; and, without one, that a document was deleted or expired.
document_history = Table(
    "document_history",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("namespace", CODE_POINTS, nullable=False),
    Column("key", CODE_POINTS, nullable=False),
    Column("change", String(16), nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    # Null, as all that follows, where it is gone.
    Column("created_at", UtcDateTime),
    Column("updated_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("ttl_microseconds", BigInteger),
    Column("kind", String(8)),
    Column("size", BigInteger),
    Column("sha256", String(64)),
    Column("labels", JSON(none_as_null=True)),
    Column("body", LargeBinary),
    PrimaryKeyConstraint("tenant", "session_id", "revision", name="pk_document_history"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_document_history_session",
        ondelete="CASCADE",
    ),
    Index("ix_document_history_name", "tenant", "session_id", "namespace", "key", "revision"),
    Index("ix_document_history_recorded_at", "recorded_at"),
)

document_requests = Table(
    "document_requests",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("request_id", String(36), nullable=False),
    # SHA-256 of the arguments.
    Column("fingerprint", String(64), nullable=False),
    # Of the first answer what the request does not say.
    Column("answer", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "request_id", name="pk_document_requests"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_document_requests_session",
        ondelete="CASCADE",
    ),
    Index("ix_document_requests_created_at", "created_at"),
)

conversations = Table(
    "conversations",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("conversation_id", String(255), nullable=False),
    # The session's revision when it was made.
    Column("number", BigInteger, nullable=False),
    # The number of the conversation that it and others were forked from, or its own.
    Column("tree", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("change", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("ttl_microseconds", BigInteger),
    # Of the head; 0 where there are no messages.
    Column("head_branch", BigInteger, nullable=False),
    Column("head_depth", BigInteger, nullable=False),
    # Of the first message of the head's branch.
    Column("head_first_depth", BigInteger, nullable=False),
    Column("head_message_id", String(255), nullable=False),
    Column("head_tokens", BigInteger, nullable=False),
    Column("head_turn_id", String(255), nullable=False),
    Column("head_turn_depth", BigInteger, nullable=False),
    Column("head_created_at", UtcDateTime),
    # Whether the next message goes on the head's branch.
    Column("head_is_end", Boolean, nullable=False),
    # Whether no other branch goes on from the head.
    Column("head_is_tip", Boolean, nullable=False),
    # Of the other branches: [[branch, depth, message id], ...].
    Column("tips", JSON, nullable=False),
    # The last messages of what was gone over to be promoted: [[branch, depth], ...].
    Column("promoted", JSON, nullable=False),
    Column("forked_from", String(255)),
    Column("forked_at", String(255), nullable=False),
    Column("display_name", String(255), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("state", JSON, nullable=False),
    # Null, as all that follows, where there is no summary.
    Column("summary_through", String(255)),
    Column("summary_tokens", BigInteger),
    Column("summary_updated_at", UtcDateTime),
    Column("summary", Text),
    PrimaryKeyConstraint("tenant", "session_id", "conversation_id", name="pk_conversations"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_conversations_session",
        ondelete="CASCADE",
    ),
    # Also the last updated of a session first.
    Index("uq_conversation_revision", "tenant", "session_id", "revision", unique=True),
    Index("ix_conversation_tree", "tenant", "session_id", "tree"),
    # The last updated of a tenant first. That it is not null goes without saying, and keeps the
    # index from those who look for rows of a session.
    Index(
        "ix_conversation_updated_at",
        "tenant",
        "updated_at",
        "session_id",
        "revision",
        postgresql_where=text("updated_at IS NOT NULL"),
    ),
    Index(
        "ix_conversation_expires_at",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
    # What has expired in a session and is not swept yet.
    Index(
        "ix_conversation_session_expires_at",
        "tenant",
        "session_id",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

# Runs of messages. One goes on from a message of another one, or begins with the first message.
conversation_branches = Table(
    "conversation_branches",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    # The session's revision when it was made.
    Column("branch", BigInteger, nullable=False),
    Column("tree", BigInteger, nullable=False),
    # The number of the conversation that appends to it.
    Column("owner", BigInteger, nullable=False),
    # 0: it begins with the first message.
    Column("parent", BigInteger, nullable=False),
    Column("first_depth", BigInteger, nullable=False),
    Column("tokens_before", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "branch", name="pk_conversation_branches"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_conversation_branches_session",
        ondelete="CASCADE",
    ),
    Index("ix_conversation_branch_tree", "tenant", "session_id", "tree"),
)

# What is small stands first, as of documents.
messages = Table(
    "messages",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("branch", BigInteger, nullable=False),
    # How many messages there are up to it.
    Column("depth", BigInteger, nullable=False),
    Column("tree", BigInteger, nullable=False),
    Column("message_id", String(255), nullable=False),
    # Empty: it is the first.
    Column("parent_id", String(255), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("is_estimated", Boolean, nullable=False),
    # Of the messages up to it, itself included.
    Column("tokens_through", BigInteger, nullable=False),
    Column("turn_id", String(255), nullable=False),
    # Of the message that its turn begins with.
    Column("turn_depth", BigInteger, nullable=False),
    # Of the body, in bytes.
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "branch", "depth", name="pk_messages"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_messages_session",
        ondelete="CASCADE",
    ),
    # What a watch has to know.
    Index("ix_message_revision", "tenant", "session_id", "revision"),
    # Not unique: forks give the same ids, each on branches of its own.
    Index("ix_message_id", "tenant", "session_id", "tree", "message_id"),
    # Where a window of so many tokens begins.
    Index("ix_message_tokens", "tenant", "session_id", "branch", "tokens_through", "depth"),
)

# That conversations are gone.
conversation_history = Table(
    "conversation_history",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("conversation_id", String(255), nullable=False),
    Column("change", String(16), nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "revision", name="pk_conversation_history"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_conversation_history_session",
        ondelete="CASCADE",
    ),
    Index("ix_conversation_history_recorded_at", "recorded_at"),
)

conversation_requests = Table(
    "conversation_requests",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("conversation_id", String(255), nullable=False),
    # SHA-256 of the arguments.
    Column("fingerprint", String(64), nullable=False),
    # Of the first answer what the request does not say.
    Column("answer", JSON, nullable=False),
    # Of messages that were removed, one after the other.
    Column("bodies", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "request_id", name="pk_conversation_requests"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_conversation_requests_session",
        ondelete="CASCADE",
    ),
    Index("ix_conversation_requests_created_at", "created_at"),
    Index("ix_conversation_requests_conversation", "tenant", "session_id", "conversation_id"),
)

# What references to sessions are made with: without it they say nothing of the session's id.
session_ref_keys = Table(
    "session_ref_keys",
    schema,
    Column("tenant", String(64), nullable=False),
    # 32 random bytes in hex.
    Column("key", String(64), nullable=False),
    PrimaryKeyConstraint("tenant", name="pk_session_ref_keys"),
)

# The last revision of an erased session: if it is made again it begins beyond it, so that it is
# never taken for the one that is gone.
session_floors = Table(
    "session_floors",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_ref", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "session_ref", name="pk_session_floors"),
)

# The same for every session of a tenant, from erasures by earlier releases.
revision_floors = Table(
    "revision_floors",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", name="pk_revision_floors"),
)

# What a tenant with a quota of what is stored has stored. Its row's lock puts the tenant's writers
# in line.
tenant_usage = Table(
    "tenant_usage",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("memories", BigInteger, nullable=False),
    Column("sessions", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("documents", BigInteger, nullable=False, server_default=text("0")),
    Column("conversations", BigInteger, nullable=False, server_default=text("0")),
    Column("messages", BigInteger, nullable=False, server_default=text("0")),
    # How often the rows themselves were counted; 0: not yet, so that the numbers are only what was
    # added since the row was made.
    Column("recounts", BigInteger, nullable=False),
    # When they are counted next.
    Column("recount_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant", name="pk_tenant_usage"),
    Index("ix_tenant_usage_recount_at", "recount_at"),
    info={UNMOVED: True},  # as the quotas
)

# Answers that earlier releases have kept; this one reads and drops them.
store_requests = Table(
    "store_requests",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("memory_id", String(36), nullable=False),
    # SHA-256 of the arguments.
    Column("fingerprint", String(64), nullable=False),
    # The first answer.
    Column("answer", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant", "session_id", "request_id", name="pk_store_requests"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_store_requests_session",
        ondelete="CASCADE",
    ),
    Index("ix_store_requests_created_at", "created_at"),
)

# A `request_id` that was answered. As small as can be, since most memories come with one:
# `memories/receipts.py` makes most answers from the memory and from what the retry says.
store_receipts = Table(
    "store_receipts",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),
    # A UUID in base64, without padding.
    Column("request_id", by_code_point(22), nullable=False),
    # The first 64 bits of the SHA-256 of the arguments.
    Column("fingerprint", BigInteger, nullable=False),
    # Of the memory in the answer.
    Column("revision", BigInteger, nullable=False),
    # Of the answer, and so of a memory that is new.
    Column("created_at", CompactTime, nullable=False),
    Column("expires_at", CompactTime),
    # Null: of the memory that this revision made, while there is one.
    Column("memory_id", String(36)),
    # What the memory and the retry do not say of it; null: nothing.
    Column("answer", JSON(none_as_null=True)),
    PrimaryKeyConstraint("tenant", "session_id", "request_id", name="pk_store_receipts"),
    ForeignKeyConstraint(
        ["tenant", "session_id"],
        ["sessions.tenant", "sessions.session_id"],
        name="fk_store_receipts_session",
        ondelete="CASCADE",
    ),
    Index("ix_store_receipts_created_at", "created_at"),
    sqlite_with_rowid=False,
)

# What the tenant `default` has set, in tables that are older than tenants. One row, made by the
# first change: the last revision that was given out. Its lock puts those who change tools in line,
# so that revisions become visible in their order.
tool_config_head = Table(
    "tool_config_head",
    schema,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("revision", BigInteger, nullable=False),
    # Up to it not every revision is kept any more.
    Column("horizon", BigInteger, nullable=False),
    # The instance's last revision that is among these.
    Column("instance_revision", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("id", name="pk_tool_config_head"),
    CheckConstraint("id = 1", name="ck_tool_config_head_single"),
)

# The overrides that hold. Of a secret a reference or a marker, never a value.
tool_configs = Table(
    "tool_configs",
    schema,
    Column("tool", String(32), nullable=False),
    # Values by their path: {"enabled": true, "rag.chunk_size": 600}.
    Column("overrides", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tool", name="pk_tool_configs"),
)

tool_config_revisions = Table(
    "tool_config_revisions",
    schema,
    Column("revision", BigInteger, autoincrement=False, nullable=False),
    Column("tool", String(32), nullable=False),
    Column("change_time", UtcDateTime, nullable=False),
    # The tenant that made it.
    Column("actor", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    # The effective configuration as callers saw it where the change was made, as proto JSON.
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    # All of the tool's overrides after it.
    Column("overrides", JSON, nullable=False),
    # The instance's by then; null where an earlier release wrote the row.
    Column("instance_overrides", JSON(none_as_null=True)),
    PrimaryKeyConstraint("revision", name="pk_tool_config_revisions"),
    Index("ix_tool_config_revisions_tool", "tool", "revision"),
)

# The same of every other tenant.
tenant_tool_heads = Table(
    "tenant_tool_heads",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("horizon", BigInteger, nullable=False),
    Column("instance_revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", name="pk_tenant_tool_heads"),
)

tenant_tool_configs = Table(
    "tenant_tool_configs",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("tool", String(32), nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "tool", name="pk_tenant_tool_configs"),
)

tenant_tool_revisions = Table(
    "tenant_tool_revisions",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("tool", String(32), nullable=False),
    Column("change_time", UtcDateTime, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    # Null in a change of the instance's, as are the last two columns in one of the tenant's own.
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Column("overrides", JSON, nullable=False),
    Column("instance_overrides", JSON, nullable=False),
    Column("instance_before", JSON(none_as_null=True)),
    # The revision of the tool's change before this one.
    Column("previous_revision", BigInteger),
    PrimaryKeyConstraint("tenant", "revision", name="pk_tenant_tool_revisions"),
    Index("ix_tenant_tool_revisions_tool", "tenant", "tool", "revision"),
)

# The same of what an admin of the instance has set for all tenants.
instance_tool_head = Table(
    "instance_tool_head",
    schema,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("horizon", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="pk_instance_tool_head"),
    CheckConstraint("id = 1", name="ck_instance_tool_head_single"),
)

instance_tool_configs = Table(
    "instance_tool_configs",
    schema,
    Column("tool", String(32), nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tool", name="pk_instance_tool_configs"),
)

instance_tool_revisions = Table(
    "instance_tool_revisions",
    schema,
    Column("revision", BigInteger, autoincrement=False, nullable=False),
    Column("tool", String(32), nullable=False),
    Column("change_time", UtcDateTime, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("overrides_before", JSON, nullable=False),
    Column("previous_revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("revision", name="pk_instance_tool_revisions"),
    Index("ix_instance_tool_revisions_tool", "tool", "revision"),
)

# One row, made by the first change: the last revision given out to a key or a tenant. Its lock puts
# those who change them in line.
access_head = Table(
    "access_head",
    schema,
    Column("id", Integer, autoincrement=False, nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="pk_access_head"),
    CheckConstraint("id = 1", name="ck_access_head_single"),
    info={UNMOVED: True},
)

# Those that have a key, or that an operator has changed; a token may name others.
tenants = Table(
    "tenants",
    schema,
    Column("tenant", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    # Tokens that were issued earlier are refused.
    Column("tokens_not_before", UtcDateTime),
    # Limits by their names, where they are not the service's own.
    Column("quotas", JSON, nullable=False, server_default=text("'{}'")),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", name="pk_tenants"),
    Index("ix_tenants_revision", "revision"),
    info={UNMOVED: True},
)

api_keys = Table(
    "api_keys",
    schema,
    Column("key_id", String(12), nullable=False),
    # SHA-256 of the key, which is nowhere.
    Column("digest", LargeBinary, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("scopes", JSON, nullable=False),
    # Rules for the sessions that it may name; none: all of its tenant's.
    Column("sessions", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    # To ten minutes.
    Column("last_used_at", UtcDateTime),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    ForeignKeyConstraint(["tenant"], ["tenants.tenant"], name="fk_api_keys_tenant"),
    Index("uq_api_keys_digest", "digest", unique=True),
    Index("ix_api_keys_tenant", "tenant", "key_id"),
    Index("ix_api_keys_revision", "revision"),
    info={UNMOVED: True},
)

# One row, made by the first line: the end of the chain. Its lock puts those who write lines in
# line.
audit_head = Table(
    "audit_head",
    schema,
    Column("id", Integer, autoincrement=False, nullable=False),
    # Of the last line.
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    # Of the last line that was dropped for its age: the oldest one kept follows it.
    Column("dropped_seq", BigInteger, nullable=False),
    Column("dropped_hash", String(64), nullable=False),
    PrimaryKeyConstraint("id", name="pk_audit_head"),
    CheckConstraint("id = 1", name="ck_audit_head_single"),
    info={UNMOVED: True},
)

audit_events = Table(
    "audit_events",
    schema,
    Column("seq", BigInteger, autoincrement=False, nullable=False),
    Column("time", UtcDateTime, nullable=False),
    # Whose line it is; empty where no tenant is known.
    Column("tenant", String(64), nullable=False),
    # The line as canonical JSON, but its hash. It has all that the columns have.
    Column("event", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("seq", name="pk_audit_events"),
    Index("ix_audit_events_tenant", "tenant", "seq"),
    Index("ix_audit_events_time", "time"),
    info={UNMOVED: True},
)
