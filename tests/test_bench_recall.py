"""What `make bench-recall` prints and writes, and that the documents have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "recall.py"
RECALL = ROOT / "docs" / "recall.md"
BEGIN, END = "<!-- bench-recall: begin -->", "<!-- bench-recall: end -->"

SAID = ["The parcel is at the harbour", "My sister plays the cello", "The cello needs new strings"]
CHATS = [
    {
        "name": "chat",
        "turns": [
            {"id": f"t{n}", "text": text, "speaker": "Ada", "episode": "1"}
            for n, text in enumerate([*SAID, SAID[0]])
        ],
        "questions": [
            {"kind": "place", "question": "Where is the parcel?", "evidence": ["t3"]},
            {"kind": "music", "question": "Who plays the cello?", "evidence": ["t1", "t2"]},
            {"kind": "music", "question": "Is anything left?", "evidence": []},
        ],
    }
]
LOCOMO = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"dia_id": f"D1:{n}", "speaker": "Bob", "text": text}
                for n, text in enumerate(SAID, 1)
            ],
        },
        "qa": [
            {"category": 4, "question": "Where is the parcel?", "evidence": ["D1:1"]},
            {"category": 5, "question": "Where is the cello?", "evidence": ["D1:2"]},
        ],
    }
]


def cells(text: str) -> list[list[str]]:
    """The rows of all tables."""
    lines = (line for line in text.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  our own
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def collections(tmp_path):
    """Two files, one in each form."""
    files = {"chats": CHATS, "locomo": LOCOMO}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / f"{name}.json") for name in files]


def test_every_collection_is_measured_beside_bm25_and_written(collections, tmp_path):
    document = tmp_path / "recall.md"
    document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    only = ("--embedders", "none", "--databases", "sqlite", "--without-facts")
    done = measure(*collections, *only, "--gate", "--write", str(document))
    assert done.returncode == 0, done.stderr
    rows = cells(done.stdout)
    assert [row[:5] for row in rows if row[0] in ("chats", "locomo")] == [
        ["chats", "BM25 alone", "", "", "2"],
        ["chats", "none", "stored", "sqlite", "2"],
        ["locomo", "BM25 alone", "", "", "1"],
        ["locomo", "none", "stored", "sqlite", "1"],
        ["locomo", "none", "promoted", "sqlite", "1"],
    ]
    of_chats = next(n for n, row in enumerate(rows) if row[0] == "chats: R@5 / nDCG@10")
    assert [row[:2] for row in rows[of_chats + 2 : of_chats + 5]] == [
        ["all", "2"],
        ["place", "1"],
        ["music", "1"],
    ]
    assert rows[of_chats + 3][2:] == ["100.0 / 100.0"] * 2
    assert "The same rankings in all runs: yes." in done.stdout
    assert document.read_text() == f"before\n\n{BEGIN}\n\n{done.stdout}\n{END}\n\nafter\n"


def test_the_gate_fails_where_bm25_alone_finds_more(tmp_path):
    turns = ["Where is the parcel?", "The parcel is in a big red box, as the man told me", SAID[1]]
    asked = {
        "name": "chat",
        "turns": [{"id": text, "text": text, "speaker": "Ada", "episode": "1"} for text in turns],
        # A question that somebody asks in a conversation is ranked below what answers it.
        "questions": [{"kind": "", "question": turns[0], "evidence": [turns[0]]}],
    }
    (tmp_path / "chats.json").write_text(json.dumps([asked]))
    only = ("--embedders", "none", "--databases", "sqlite", "--without-facts")
    done = measure(str(tmp_path / "chats.json"), *only, "--gate")
    assert done.returncode == 1
    assert "Below BM25 alone: chats, all, none: nDCG@10 63.1, not 100.0." in done.stdout


def test_a_document_without_markers_is_refused_before_anything_is_measured(tmp_path):
    document = tmp_path / "recall.md"
    document.write_text("nothing to replace")
    done = measure("--write", str(document))
    assert done.returncode == 1
    assert BEGIN in done.stderr
    assert document.read_text() == "nothing to replace"


def test_files_of_one_name_are_refused(collections):
    done = measure(collections[0], collections[0], "--without-facts")
    assert done.returncode == 2
    assert "chats, chats" in done.stderr


@pytest.mark.parametrize("collection", ["locomo", "beam", "friends", "facts"])
def test_the_documents_have_every_collection_beside_bm25(collection):
    text = RECALL.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    rows = cells(text.partition(BEGIN)[2].partition(END)[0])
    systems = {row[1] for row in rows if row[0].startswith(collection)}
    assert {"BM25 alone", "none"} <= systems
    assert any(row[0].startswith(f"{collection}") and ": " in row[0] for row in rows)
