"""Each record is one log line, whatever a caller causes to be logged."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.logs import MAX_LINE_CHARACTERS, JsonFormatter, TextFormatter, logging_to

FORGED = (
    "x\n2026-01-02T03:04:05.678+00:00 info memoryd.access call code=OK\x1b[2J\x9b\u2028\u2029\x85"
    "\x7f\u202etxt.exe\u2066\u200f\u061c"
)
LONG = ("/" * 100_000, FORGED * 2_000, '"' * 100_000, "\u2028" * 100_000)
UNSAFE = {*map(chr, (*range(32), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F))}
SURROGATES = {*map(chr, range(0xD800, 0xE000))}
UNSAFE |= {*map(chr, (*range(0x2028, 0x202F), *range(0x2066, 0x206A)))} | SURROGATES


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
    return not UNSAFE & set(line)


@pytest.mark.parametrize("as_json", [False, True])
@given(
    st.one_of(
        st.text(max_size=50),
        st.text(st.sampled_from(sorted(UNSAFE - SURROGATES)), max_size=50),
        st.sampled_from((FORGED, *LONG)),
    )
)
def test_a_record_is_one_bounded_line_without_control_characters(as_json, text):
    output = written(text, as_json=as_json)
    assert output.endswith("\n")
    line = output.removesuffix("\n")
    assert is_plain(line)
    assert len(line) <= MAX_LINE_CHARACTERS
    if as_json:
        entry = json.loads(line)
        assert entry["level"] == "info"
        if len(text) <= 50:
            assert (entry["message"], entry["method"]) == (text, text)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_is_no_character_is_escaped(formatter):
    # Formatted here alone: what pytest keeps of a log must be UTF-8.
    record = logging.makeLogRecord({"msg": "".join(SURROGATES), "method": "\ud800 \udc00"})
    assert is_plain(formatter.format(record))


@pytest.mark.parametrize("text", [FORGED, *LONG], ids=range(5))
def test_no_line_of_a_traceback_looks_like_a_record(text):
    first, *others = written(text, as_json=False, raised=True).splitlines()
    assert "error memoryd.test unhandled" in first
    assert others
    assert all(line.startswith("  ") and is_plain(line) for line in others)
    assert max(map(len, (first, *others))) <= MAX_LINE_CHARACTERS
    (only,) = written(text, as_json=True, raised=True).removesuffix("\n").split("\n")
    assert json.loads(only)["exception"].startswith("  ")
    assert len(only) <= MAX_LINE_CHARACTERS
    assert is_plain(only)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("text", ["/" * 100_000, "\u2028" * 100_000])
def test_a_cut_value_says_how_long_it_was(text, as_json):
    assert f"… ({100_000:,} characters)" in written(text, as_json=as_json)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_short_field_is_whole_beside_a_long_one(as_json):
    stream = io.StringIO()
    with logging_to(stream, level="info", as_json=as_json):
        fields = {"path": "/" * 100_000, "other": "/" * 100_000, "request_id": "x" * 32}
        logging.getLogger("memoryd.test").info("call", extra=fields)
    line = stream.getvalue().removesuffix("\n")
    assert len(line) <= MAX_LINE_CHARACTERS
    assert "x" * 32 in line
