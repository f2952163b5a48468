"""LoCoMo (Maharana et al., 2024) as memories and questions, and the measures reported on it.

The licence of the data (CC BY-NC 4.0) does not allow us to ship it: pass scripts the path of a file
in the format of its authors' `locomo10.json`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ADVERSARIAL = 5
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}

_TURN = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance, as it is stored."""

    turn_id: str
    content: str
    speaker: str
    occurred_at: datetime
    episode: str


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    category: int
    evidence: frozenset[str]
    """Ids of the turns with the answer."""


@dataclass(frozen=True, slots=True)
class Conversation:
    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def load(path: Path) -> list[Conversation]:
    """Every conversation, without adversarial questions and those without evidence."""
    return [_conversation(raw) for raw in json.loads(path.read_text(encoding="utf-8"))]


def recall(found: Sequence[object], evidence: frozenset[object], k: int) -> float:
    """The share of the evidence among the first k, 0 to 1."""
    return len(evidence.intersection(found[:k])) / len(evidence)


def ndcg(found: Sequence[object], evidence: frozenset[object], k: int) -> float:
    """Normalised discounted cumulative gain of the first k; every turn of evidence counts 1."""
    gain = sum(1 / math.log2(place + 2) for place, i in enumerate(found[:k]) if i in evidence)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(evidence))))


def _conversation(raw: dict[str, Any]) -> Conversation:
    turns = tuple(_turns(raw["conversation"]))
    known = frozenset(turn.turn_id for turn in turns)
    asked = (
        Question(item["question"], item["category"], known & _evidence(item.get("evidence", ())))
        for item in raw["qa"]
        if item["category"] != ADVERSARIAL
    )
    return Conversation(raw["sample_id"], turns, tuple(q for q in asked if q.evidence))


def _turns(conversation: dict[str, Any]) -> Iterator[Turn]:
    numbers = [
        int(match[1]) for key in conversation if (match := re.fullmatch(r"session_(\d+)", key))
    ]
    for number in sorted(numbers):
        said = conversation[f"session_{number}_date_time"]
        date = datetime.strptime(f"{said} +0000", "%I:%M %p on %d %B, %Y %z")
        for turn in conversation[f"session_{number}"]:
            caption = turn.get("blip_caption")
            yield Turn(
                turn_id=turn["dia_id"],
                content=turn["text"] + (f" [shares {caption}]" if caption else ""),
                speaker=turn["speaker"],
                occurred_at=date,
                episode=str(number),
            )


def _evidence(named: Sequence[str]) -> set[str]:
    parts = (part for name in named for part in re.split(r"[;,\s]+", name))
    matches = (_TURN.fullmatch(part) for part in parts)
    return {f"D{int(match[1])}:{int(match[2])}" for match in matches if match}
