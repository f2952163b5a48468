"""Spans of time on the command line, such as `90d`."""

from __future__ import annotations

import re
from datetime import timedelta

from memoryd.cli.running import fail

SPAN_RULE = "a whole number and s, m, h or d, such as 90d"

_SPAN = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>[smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_span(text: str) -> timedelta | None:
    """Read a span; None: it is none."""
    span = _SPAN.fullmatch(text)
    return None if span is None else timedelta(**{_UNITS[span["unit"]]: int(span["count"])})


def span_of(option: str, text: str) -> timedelta:
    """Read the span of an option; end the process where it is none."""
    span = read_span(text)
    if span is None:
        fail(f"{option}: expected {SPAN_RULE}")
    return span
