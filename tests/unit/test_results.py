"""An answer assembled from encoded parts equals its message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from memoryd.domain.records import ContentType, Memory, Session
from memoryd.recall.fusion import Ranked
from memoryd.retrieval.engine import Result
from memoryd.retrieval.session_view import Encoded
from memoryd.rpc.memories import messages as convert
from memoryd.rpc.memories.results import ENCODING, encoded_response
from memoryd.v1 import memory_pb2 as pb

moments = st.integers(-(10**14), 7 * 10**15).map(
    lambda microseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
doubles = st.floats(allow_nan=False)


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    created = draw(moments)
    return Memory(
        session=Session("tenant", draw(st.text(max_size=20))),
        memory_id="0" * 36,
        content=draw(st.text(max_size=300)),
        content_type=draw(st.sampled_from(ContentType)),
        importance=draw(st.floats(0, 1)),
        metadata=draw(st.dictionaries(st.text(max_size=5), st.none() | st.text() | doubles)),
        content_hash="a" * 64,
        semantic_hash="b" * 16,
        created_at=created,
        updated_at=created + timedelta(seconds=1),
        expires_at=draw(st.none() | moments),
        revision=draw(st.integers(1, 2**40)),
        created_revision=1,
        access_count=draw(st.integers(0, 2**31 - 1)),
        last_accessed=draw(st.none() | moments),
    )


ranked = st.builds(
    Ranked,
    st.just(0),
    st.just(""),
    st.none() | st.floats(0, 1),
    *(doubles.filter(lambda n: abs(n) < 1e300) for _ in range(8)),
)


@given(
    found=st.lists(st.tuples(memories(), st.floats(0, 1), ranked), max_size=3),
    revision=st.integers(0, 2**60),
    revisions=st.none() | st.dictionaries(st.text(max_size=5), st.integers(0, 2**60), max_size=3),
    truncated=st.booleans(),
)
def test_an_encoded_answer_is_the_message(
    found: list[tuple[Memory, float, Ranked]],
    revision: int,
    revisions: dict[str, int] | None,
    *,
    truncated: bool,
) -> None:
    expected = pb.RetrieveMemoriesResponse(
        revision=revision, revisions=revisions, truncated=truncated
    )
    results = []
    for memory, importance, one in found:
        accessed = memory.accesses
        encoded = Encoded(memory, None, ENCODING.lasting(memory), ENCODING.accesses(accessed))
        results.append(Result(encoded, importance, one))
        message = convert.memory_message(memory, now=memory.created_at, half_life_days=30.0)
        message.effective_importance = importance
        parts = {name: getattr(one, name) for name in Ranked._fields[3:]}
        expected.results.add(
            memory=message,
            score=one.score,
            breakdown=pb.ScoreBreakdown(**parts),
            relevance=one.relevance,
        )
    encoded_answer = encoded_response(results, revision, revisions, truncated=truncated)
    assert pb.RetrieveMemoriesResponse.FromString(encoded_answer) == expected
