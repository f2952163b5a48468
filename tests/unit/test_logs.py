"""Each record is one log line, whatever a caller causes to be logged."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.logs import MAX_EXCEPTION_CHARACTERS, MAX_TEXT_CHARACTERS, logging_to

FORGED = (
    "x\n2026-01-02T03:04:05.678+00:00 info memoryd.access call code=OK\x1b[2J\x9b\u2028\u2029\x85"
)
LONGEST_LINE = 8 * MAX_TEXT_CHARACTERS + MAX_EXCEPTION_CHARACTERS


def written(text: str, *, as_json: bool, raised: bool = False) -> str:
    stream = io.StringIO()
    log = logging.getLogger("memoryd.test")
    with logging_to(stream, level="info", as_json=as_json):
        if raised:
            try:
                raise ValueError(text)
            except ValueError:
                log.exception("unhandled", extra={"method": text})
        else:
            log.info("%s", text, extra={"method": text})
    return stream.getvalue()


def is_plain(line: str) -> bool:
    return all(c >= " " and not "\x7f" <= c <= "\x9f" and c not in "\u2028\u2029" for c in line)


@pytest.mark.parametrize("as_json", [False, True])
@given(st.one_of(st.text(max_size=50), st.just(FORGED), st.just("/" * 100_000)))
def test_a_record_is_one_bounded_line_without_control_characters(as_json, text):
    output = written(text, as_json=as_json)
    assert output.endswith("\n")
    line = output.removesuffix("\n")
    assert is_plain(line)
    assert len(line) < LONGEST_LINE
    if as_json:
        assert json.loads(line)["level"] == "info"


@pytest.mark.parametrize("text", [FORGED, "/" * 100_000])
def test_no_line_of_a_traceback_looks_like_a_record(text):
    first, *others = written(text, as_json=False, raised=True).splitlines()
    assert "error memoryd.test unhandled" in first
    assert others
    assert all(line.startswith("  ") and is_plain(line) for line in others)
    (only,) = written(text, as_json=True, raised=True).removesuffix("\n").split("\n")
    assert json.loads(only)["exception"].startswith("  ")
    assert len(only) < 2 * LONGEST_LINE


def test_a_cut_value_says_how_long_it_was():
    assert f"… ({100_000:,} characters)" in written("/" * 100_000, as_json=False)
