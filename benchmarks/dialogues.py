"""Dialogues as memories and questions, whatever collection they are of.

Their licences do not allow us to ship them: pass scripts the paths of files, in one of two forms:

- `locomo10.json` of LoCoMo's authors;
- a list of `{name, turns: [{id, text, speaker, episode, occurred_at?}], questions: [{kind,
  question, evidence: [id]}]}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import locomo

if TYPE_CHECKING:
    from pathlib import Path

MAX_CHARACTERS = 16_384
"""Of a memory; the rest of a longer turn is left out."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance, as it is stored."""

    content: str
    speaker: str
    occurred_at: datetime | None
    episode: str


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    kind: str
    evidence: frozenset[int]
    """Places of the turns with the answer."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    collection: str
    """The name of its file, without endings."""
    name: str
    turns: tuple[Turn, ...]
    """All different: what is said again is the first turn that says so, as the service has it."""
    questions: tuple[Question, ...]


def load(path: Path) -> list[Dialogue]:
    """Every dialogue of a file, without questions that have no evidence."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    if "qa" not in raw[0]:
        return [_dialogue(path.stem, one) for one in raw]
    return [
        _joined(
            path.stem,
            known.name,
            [
                (t.turn_id, Turn(t.content, t.speaker, t.occurred_at, t.episode))
                for t in known.turns
            ],
            [(q.text, locomo.CATEGORIES[q.category], q.evidence) for q in known.questions],
        )
        for known in locomo.load(path)
    ]


def _dialogue(collection: str, raw: dict[str, Any]) -> Dialogue:
    turns = [(turn["id"], _turn(turn)) for turn in raw["turns"]]
    asked = [(q["question"], q["kind"], q["evidence"]) for q in raw["questions"]]
    return _joined(collection, raw["name"], turns, asked)


def _turn(raw: dict[str, Any]) -> Turn:
    moment = raw.get("occurred_at")
    return Turn(
        raw["text"][:MAX_CHARACTERS],
        raw["speaker"],
        datetime.fromisoformat(moment) if moment else None,
        raw["episode"],
    )


def _joined(
    collection: str,
    name: str,
    turns: list[tuple[str, Turn]],
    asked: list[tuple[str, str, Any]],
) -> Dialogue:
    different: dict[str, int] = {}
    place_of = {i: different.setdefault(turn.content, len(different)) for i, turn in turns}
    first: dict[int, Turn] = {}
    for i, turn in turns:
        first.setdefault(place_of[i], turn)
    questions = (
        Question(text, kind, frozenset(place_of[i] for i in evidence if i in place_of))
        for text, kind, evidence in asked
    )
    return Dialogue(
        collection, name, tuple(first.values()), tuple(q for q in questions if q.evidence)
    )
