"""The table of metrics: the one place that names them, and what they tell."""

from __future__ import annotations

import enum
from typing import NamedTuple

RPC_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TRANSACTION_SECONDS = RPC_SECONDS
TRANSACTION_ITEMS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)

TENANT = "tenant"
"""The label that is left out where there are too many tenants, or the scraper may not know them."""

MOST_TENANTS = 100
"""With more, no series has the label `tenant`."""


class Kind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Of(enum.Enum):
    """What a gauge of several workers is, of theirs."""

    SUM = enum.auto()
    LEAST = enum.auto()
    GREATEST = enum.auto()


class Metric(NamedTuple):
    """A family of series. A counter's series end in `_total`, a histogram's in `_bucket` etc."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds, of a histogram."""
    known: tuple[str, ...] = ()
    """Values of the first label that are given before there is anything to count."""
    beside: str = ""
    """A value of the last label that is given wherever there is another: an alert sees only
    what grows, not what begins."""
    workers: Of = Of.SUM
    unit: str = ""

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series, as they are queried."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (f"{self.name}_total",) if self.kind is Kind.COUNTER else (self.name,)


CALLS = Metric(
    "rpc_server_call_duration_seconds",
    Kind.HISTOGRAM,
    "How long calls took, over gRPC and over HTTP; of a stream, from its beginning to its end.",
    ("rpc_method", "rpc_response_status_code"),
    buckets=RPC_SECONDS,
    beside="INTERNAL",
    unit="seconds",
)
STORES = Metric(
    "memoryd_stores",
    Kind.COUNTER,
    "Memories that were stored, by what became of them.",
    ("outcome", TENANT),
    known=("created", "merged", "replaced"),
)
REFUSALS = Metric(
    "memoryd_refusals",
    Kind.COUNTER,
    "Calls, and items of streams, that were refused, by the reason that the caller got.",
    ("reason", TENANT),
)
WRITE_SECONDS = Metric(
    "memoryd_write_transaction_seconds",
    Kind.HISTOGRAM,
    "How long transactions took that stores and changes share, and that were committed; purging,"
    " erasing, merging and sweeping have others.",
    buckets=TRANSACTION_SECONDS,
    unit="seconds",
)
WRITE_ITEMS = Metric(
    "memoryd_write_transaction_items",
    Kind.HISTOGRAM,
    "How many writes shared a transaction that was committed.",
    buckets=TRANSACTION_ITEMS,
)
CACHE_REQUESTS = Metric(
    "memoryd_session_cache_requests",
    Kind.COUNTER,
    "Sessions that were asked for: in memory as they are, brought up to date, or read as a whole.",
    ("result",),
    known=("hit", "update", "miss"),
)
SWEPT = Metric(
    "memoryd_swept",
    Kind.COUNTER,
    "What the sweeper took away.",
    ("kind",),
    known=(
        *("expired_memory", "expired_document", "expired_conversation"),
        *("unused_memory", "purged_memory", "request", "history"),
    ),
)
QUEUE = Metric(
    "memoryd_write_queue_items",
    Kind.GAUGE,
    "Items that wait for their transaction.",
)
DATABASE_UP = Metric(
    "memoryd_database_up",
    Kind.GAUGE,
    "Whether the database answered when last looked at, and its schema fits: 1, else 0.",
    workers=Of.LEAST,
)
CONNECTIONS = Metric(
    "memoryd_database_connections",
    Kind.GAUGE,
    "Open connections of the pools to the database.",
    ("state",),
)
CACHE_BYTES = Metric(
    "memoryd_session_cache_bytes",
    Kind.GAUGE,
    "About what sessions kept in memory take.",
    unit="bytes",
)
BACKLOG = Metric(
    "memoryd_embedding_backlog_items",
    Kind.GAUGE,
    "Memories that wait for their vector.",
)
STREAMS = Metric(
    "memoryd_streams",
    Kind.GAUGE,
    "Streams under way.",
    ("method",),
)
AUDIT_LAG = Metric(
    "memoryd_audit_lag_seconds",
    Kind.GAUGE,
    "The age of the oldest line of the audit that is not written; 0: there is none.",
    workers=Of.GREATEST,
    unit="seconds",
)

METRICS = (
    *(CALLS, STORES, REFUSALS, QUEUE, WRITE_SECONDS, WRITE_ITEMS, DATABASE_UP, CONNECTIONS),
    *(CACHE_BYTES, CACHE_REQUESTS, BACKLOG, STREAMS, SWEPT, AUDIT_LAG),
)
"""All that are memoryd's own; those of the process and of Python are the library's."""
