"""What an agent's prompt needs of a conversation, cut to a number of characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memoryd.client.answers import Role
from memoryd.client.prompts import cut, line_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memoryd.client.answers import Message, Part, RetrievedMemory
    from memoryd.client.windows import Window

DEFAULT_CHARACTERS = 16_000
"""Of a prompt: about 4,000 tokens."""

CONVERSATION_SHARE = 0.75
"""Of a prompt's characters, for summary and messages; memories have what these leave."""

SUMMARY_SHARE = 0.25
"""Of a prompt's characters, at most, for the summary; a longer one loses its end."""

CHARACTERS_PER_TOKEN = 4
"""As the service estimates tokens."""

SUMMARY_HEADING = "Summary of the conversation before:"
MEMORIES_HEADING = "What is known:"
MESSAGES_HEADING = "The conversation:"

_BREAK = "\n\n"


@dataclass(frozen=True, slots=True)
class Context:
    """Summary, last messages and memories for an agent's turn."""

    summary: str
    """Of what was said before the messages. Empty: there is none."""
    messages: Sequence[Message]
    """The newest, the oldest first. They begin with a whole turn where one fits."""
    memories: Sequence[RetrievedMemory]
    """The best first. Those promoted from one of the messages are left out."""

    @property
    def text(self) -> str:
        """All three as plain text, for a prompt."""
        memories = list(map(line_of_memory, self.memories))
        parts = (
            (SUMMARY_HEADING, [self.summary] if self.summary else []),
            (MEMORIES_HEADING, memories),
            (MESSAGES_HEADING, list(map(line_of, self.messages))),
        )
        return _BREAK.join("\n".join([heading, *lines]) for heading, lines in parts if lines)


def tokens_within(max_chars: int) -> int:
    """The tokens of messages to read for a prompt of so many characters."""
    return max(1, int(max_chars * CONVERSATION_SHARE) // CHARACTERS_PER_TOKEN)


def conversation_within(max_chars: int, window: Window) -> Context:
    """Summary and messages of a context, without memories. At least one message if there is one."""
    newest = "\n".join([MESSAGES_HEADING, *map(line_of, window.messages[-1:])])
    summary = cut(
        window.summary.text if window.summary else "",
        min(int(max_chars * SUMMARY_SHARE), max_chars - len(newest + _BREAK))
        - len(f"{SUMMARY_HEADING}\n"),
    )
    room = int(max_chars * CONVERSATION_SHARE) - len(Context(summary, (), ()).text)
    room -= len(_BREAK + MESSAGES_HEADING)
    first = len(window.messages)
    for message in reversed(window.messages):
        room -= len("\n" + line_of(message))
        if room < 0 and first < len(window.messages):
            break
        first -= 1
    return Context(summary, window.messages[_turn_from(window.messages, first) :], ())


def _turn_from(messages: Sequence[Message], first: int) -> int:
    """Where the next whole turn begins, as in a window with `complete_turns`; or `first`."""
    if first == 0:
        return 0
    for place in range(first, len(messages)):
        message, before = messages[place], messages[place - 1]
        is_inside = message.turn_id and message.turn_id == before.turn_id
        if not is_inside and not any(part.tool_result for part in message.parts):
            return place
    return first


def memory_room(max_chars: int, context: Context) -> int:
    """How many characters the memories may have."""
    return max_chars - len(context.text) - len(_BREAK + MEMORIES_HEADING)


def with_memories(
    max_chars: int, context: Context, results: Iterable[RetrievedMemory], episode: str
) -> Context:
    """The context with the best of some memories, as many as fit.

    `episode`: the conversation, by which memories that repeat one of the messages are known.
    """
    shown = {(episode, message.message_id) for message in context.messages}
    memories: list[RetrievedMemory] = []
    room = memory_room(max_chars, context)
    for result in results:
        metadata = result.memory.metadata
        if (metadata.get("episode"), metadata.get("message_id")) in shown:
            continue
        room -= len("\n" + line_of_memory(result))
        if room < 0:
            break
        memories.append(result)
    return Context(context.summary, context.messages, memories)


def line_of(message: Message) -> str:
    """A message as a line of text, or several."""
    role = "" if message.role is Role.UNSPECIFIED else message.role
    said = "\n".join(filter(None, map(_text_of, message.parts))) or message.raw_json
    return f"{message.author or role or 'unknown'}: {said}"


def _text_of(part: Part) -> str:
    """What a model reads of a part: thoughts are left out, files and bytes are named."""
    if part.text:
        return part.text
    if call := part.tool_call:
        return f"[calls {call.name}({call.arguments_json})]"
    if result := part.tool_result:
        said = result.text or result.json
        return f"[error: {said}]" if result.is_error else f"[result: {said}]"
    if part.blob:
        return f"[{part.blob.mime_type}]"
    if part.file:
        return f"[{part.file.name or part.file.uri}]"
    return ""
