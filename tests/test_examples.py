"""The Python examples work; `make examples` runs those that need other toolchains."""

from __future__ import annotations

import sys
from pathlib import Path

AGENT = Path(__file__).parent.parent / "examples" / "agent.py"


def converse(command_line, address: str, *lines: str) -> list[str]:
    said = " ".join(f"'{line}'" for line in lines)
    printed = command_line.shell(
        f"printf '%s\\n' {said} | '{sys.executable}' '{AGENT}' {address} ada"
    )
    return str(printed).splitlines()


def test_the_agent_remembers_from_one_conversation_to_the_next(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    first = converse(
        command_line,
        address,
        "I prefer e-mail over the phone.",
        "I PREFER e-mail over the phone",
        "My order 4711 is late.",
    )
    assert first == [
        "agent: I do not know you yet.",
        "  (new: I prefer e-mail over the phone.)",
        "agent: Noted. I remember 1 thing(s) about you.",
        "  (known: I PREFER e-mail over the phone)",
        "agent: Noted. I remember 1 thing(s) about you.",
        "  (new: My order 4711 is late.)",
    ]
    assert converse(command_line, address, "Shall we reach you by e-mail or by phone?") == [
        "agent: You told me: I prefer e-mail over the phone."
    ]


def test_the_agent_continues_after_a_refusal(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    printed = converse(command_line, address, "I " + "a" * 16_384, "I like tea")
    refused_query, reply, refused_content, *rest = printed
    assert refused_query.startswith("  (nothing retrieved: query: ")
    assert reply == "agent: I do not know you yet."
    assert refused_content.startswith("  (not stored: content: ")
    assert rest == ["agent: I do not know you yet.", "  (new: I like tea)"]
