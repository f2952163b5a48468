"""The documents state the values of constants that no setting changes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"

STATED = [
    ("access", "tools.known:MAX_TENANTS", "settings of the last {:,} tenants"),
    ("limits", "domain.content:MAX_CONTENT_CHARS", "{:,} characters after sanitising"),
    ("limits", "domain.content:MAX_RAW_CHARS", "{:,} as sent"),
    ("limits", "domain.metadata:MAX_METADATA_DEPTH", "{} containers deep"),
    ("limits", "memories.group_commit:MAX_WAIT_SECONDS", "writes in {:g} second at"),
    ("limits", "memories.group_commit:LARGE_WRITES", "64 KiB that are committed or next | – ({})"),
    ("limits", "retrieval.loading:MOST_LOADED", "{:,} characters that are not in memory"),
    ("limits", "rpc.endpoint:ENDS_SECONDS", "such end within {:g} seconds"),
    ("limits", "rpc.endpoint:MOST_ENDS", "At the {}th such end"),
    ("limits", "rpc.limits:FIRST_RETURN_SECONDS", "from {:g} to 10 seconds"),
    ("limits", "rpc.limits:LAST_RETURN_SECONDS", "from 0.5 to {:g} seconds"),
    ("limits", "rpc.limits:RETURNS_A_SECOND", "no more than {} a second come back"),
    ("limits", "rpc.page_token:MAX_SIZE", "a page of a list | {:,},"),
    ("limits", "rpc.memories.requests:MAX_RESULTS", "results of a retrieval | {},"),
    ("limits", "rpc.memories.store_stream:MAX_UNANSWERED", "– ({:,}; 8 MiB)"),
    ("limits", "rpc.sizes:MAX_STREAM_MESSAGE", "`StreamStoreMemories` | {} memories"),
    ("recall", "recall.languages:TELLING_WORDS", "language | its first {} words"),
    ("recall", "recall.looking_up:MOST_ALIKE", "each stands for at most {} |"),
    ("recall", "recall.looking_up:MOST_COMPARED", "words of a query | the first {} are"),
    ("recall", "recall.looking_up:MOST_LANGUAGES", "looked up | the {} that most"),
    ("recall", "recall.spellings:LEAST_OF_A_SLIP", "or {} if they differ by one slip"),
    ("recall", "recall.spellings:LEAST_SIMILARITY", "trigrams of at least {}, or"),
    ("telemetry", "telemetry.metrics:MOST_TENANTS", "**At most {} tenants.**"),
    ("limits", "rpc.pipeline:HEALTH_CHECKS", "({:,}; 50,"),
    ("limits", "rpc.pipeline:REFLECTION_IDLE_SECONDS", "asks nothing for {:g} seconds"),
    ("limits", "rpc.pipeline:REFLECTION_STREAMS", "(1,000; {},"),
    ("limits", "server_options:CONNECTION_IDLE_TIMEOUT_SECONDS", "(10 seconds; {} seconds)"),
    ("limits", "server_options:HANDSHAKE_TIMEOUT_SECONDS", "({} seconds; 20 seconds)"),
    ("limits", "server_options:MAX_PENDING_CALLS", "up to {:,}; beyond that gRPC"),
    ("limits", "server_options:OWN_DESCRIPTORS", "less {} and"),
    ("concepts", "domain.importance:ACCESS_BOOST", "plus {:g} for each access"),
    ("concepts", "domain.importance:MAX_ACCESS_BOOST", "at most {:g} |"),
    ("concepts", "sessions.feed:POLL_SECONDS", "every {:g} seconds behind PgBouncer"),
    ("concepts", "tools.configs:POLL_SECONDS", "also looks every {:g} seconds"),
    ("concepts", "tools.store:KEPT_REVISIONS", "the last {:,} of each tool"),
    ("access", "audit.refusals:DISTINCT", "Up to {:,} such lines a minute"),
    ("access", "audit.writer:QUEUE_LIMIT", "up to {:,} of them wait in each server"),
    ("access", "domain.audit:MAX_SESSION_REFS", "at most {}: HMAC-SHA-256"),
    ("deletion", "database.scrub:LAST_PAGES", "the last {} pages"),
    ("deletion", "memories.sweeper:BATCH", "at most {} rows"),
    ("deploy", "cli.serve:STOP_MARGIN_SECONDS", "has not ended {:g} seconds later"),
    ("deploy", "database.embedded:TAKEOVER_SECONDS", "waits for {:g} seconds"),
    ("deploy", "workers:FIRST_PAUSE_SECONDS", "replaced after {:g} seconds"),
    ("deploy", "workers:STEADY_SECONDS", "within {:g} seconds each"),
    ("postgresql", "sessions.feed:POLL_SECONDS", "look every {:g} seconds instead"),
    ("postgresql", "sessions.replica:FIRST_REST_SECONDS", "no questions for {:g} seconds"),
    ("postgresql", "sessions.replica:LONGEST_REST_SECONDS", "then for up to {:g},"),
    ("postgresql", "sessions.replica:STANDBY_TIMEOUT_SECONDS", "longer\nthan {:g} second "),
    ("backup", "rpc.health:CHECK_SECONDS", "every {:g} seconds while all is well"),
    ("backup", "rpc.health:FIRST_PAUSE_SECONDS", "after {:g} to 1 second"),
    ("backup", "rpc.health:LONGEST_PAUSE_SECONDS", "after 0.25 to {:g} second"),
    ("alerts", "sessions.feed:POLL_SECONDS", "late by up to {:g} seconds"),
    ("settings", "tools.secrets.cache:REFRESH_SECONDS", "refreshed from {:g} seconds on"),
    ("settings", "tools.secrets.cache:RETRY_SECONDS", "look-up for {:g} seconds"),
    ("settings", "tools.secrets.cache:TTL_SECONDS", "cached for {:g} seconds"),
    ("settings", "tools.secrets:RESOLVE_TIMEOUT_SECONDS", "waits at most {:g} seconds"),
    ("settings", "tools.checks:START_TIMEOUT_SECONDS", "a start in production {:g}."),
]
"""Page, constant in memoryd, and the words around its value."""


@pytest.mark.parametrize(
    ("page", "constant", "words"),
    STATED,
    ids=[f"{page}-{constant}" for page, constant, _ in STATED],
)
def test_documented_numbers_match_the_code(page, constant, words):
    module, _, name = constant.partition(":")
    value = getattr(import_module(f"memoryd.{module}"), name)
    text = " ".join((DOCS / f"{page}.md").read_text().split())
    assert " ".join(words.format(value).split()) in text
