"""The audit as its table has it, and as a stranger verifies it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

Line = dict[str, Any]

FIRST_HASH = "0" * 64


async def lines_of(tables: Any, method: str = "") -> list[Line]:
    """Every line, in its order; or those of one method, by the last part of its name."""
    rows = await tables.rows("SELECT event, hash FROM audit_events ORDER BY seq")
    lines = [{**json.loads(event), "hash": line_hash} for event, line_hash in rows]
    return [
        line for line in lines if line.get("method", "").endswith(f"/{method}" if method else "")
    ]


def follows(line: Line, previous_hash: str) -> bool:
    """Whether a line is as it was written, and behind another, by what the documents say."""
    fields = {name: value for name, value in line.items() if name != "hash"}
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    is_whole = hashlib.sha256(text.encode()).hexdigest() == line["hash"]
    return is_whole and line["previous_hash"] == previous_hash


def is_chain(lines: list[Line]) -> bool:
    previous = FIRST_HASH
    for seq, line in enumerate(lines, 1):
        if line["seq"] != seq or not follows(line, previous):
            return False
        previous = line["hash"]
    return True
