"""The client's context of a prompt keeps its number of characters, whatever is in it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from memoryd.client import Memory, Message, Part, RetrievedMemory, ToolResult
from memoryd.client.answers import Summary
from memoryd.client.context import (
    MESSAGES_HEADING,
    conversation_within,
    line_of,
    memory_room,
    with_memories,
)
from memoryd.client.windows import Window

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
MESSAGES = st.lists(
    st.builds(
        lambda text, turn, is_result: Message(
            turn_id=turn,
            parts=[Part(tool_result=ToolResult(text=text)) if is_result else Part(text=text)],
        ),
        TEXTS,
        st.sampled_from(["", "t1", "t2"]),
        st.booleans(),
    ),
    max_size=12,
)
MEMORIES = st.lists(
    TEXTS.map(lambda text: RetrievedMemory(memory=Memory(content=text))), max_size=8
)


@given(st.integers(1, 1500), TEXTS, MESSAGES, MEMORIES)
@example(400, "x" * 200, [Message(parts=[Part(text="y" * 330)])], [])
def test_a_context_keeps_its_limit(max_chars, summary, messages, memories):
    window = Window(messages, Summary(text=summary) if summary else None)
    context = conversation_within(max_chars, window)
    if memory_room(max_chars, context) > 0:
        context = with_memories(max_chars, context, memories, "c")
    newest = "\n".join([MESSAGES_HEADING, *map(line_of, messages[-1:])])
    assert len(context.text) <= max(max_chars, len(newest) if messages else 0)
    # The newest messages and the best memories, without a gap.
    assert context.messages == messages[len(messages) - len(context.messages) :]
    assert bool(context.messages) == bool(messages)
    assert list(context.memories) == memories[: len(context.memories)]
    assert summary.startswith(context.summary.removesuffix("…")) or context.summary == summary


@given(TEXTS, MESSAGES, MEMORIES)
def test_what_fits_is_there(summary, messages, memories):
    window = Window(messages, Summary(text=summary) if summary else None)
    context = conversation_within(100_000, window)
    context = with_memories(100_000, context, memories, "c")
    assert (context.summary, context.messages) == (summary, messages)
    assert context.memories == memories
