"""Texts as they stand: all their words, numbers and signs, none of them stemmed or left out."""

from __future__ import annotations

import re
import unicodedata
from itertools import chain

import regex

from memoryd.recall.text import SPACED_WORD, UNSPACED, folded, picture_parts

MINUS = "\N{MINUS SIGN}"

# A hyphen before a number and behind no word is a minus.
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_ASCII_PIECE = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*|[!-/:-`{-~]")
# A word, else what readers take for one sign, which may be several characters.
_PIECE = regex.compile(rf"[{UNSPACED}]|{SPACED_WORD}|(?!\s)\X", regex.V1)

_TELLING_PUNCTUATION = frozenset("#%&*@/\\\N{SECTION SIGN}")
"""Of what Unicode calls punctuation, what changes what is said: "C#", "5 %", "and/or"."""


def plain(text: str) -> str:
    """In lower case and compatibility form, with one apostrophe and one minus."""
    return _MINUS.sub(MINUS, folded(text).replace("\u2019", "'"))


def pieces(text: str) -> list[str]:
    """The words and signs of a plain text, in order.

    Scripts without spaces come by characters, pictures as a whole and in their parts.
    """
    if text.isascii():
        return _ASCII_PIECE.findall(text)
    return [*chain.from_iterable(map(_parts, _PIECE.findall(text)))]


def statement(text: str) -> list[str]:
    """Those of a plain text but what only parts sentences: two with the same say the same."""
    return [*filter(_tells, pieces(text))]


def _parts(piece: str) -> tuple[str, ...]:
    return (piece,) if piece.isalnum() else picture_parts(piece)


def _tells(piece: str) -> bool:
    return (
        piece in _TELLING_PUNCTUATION
        or len(piece) > 1
        or not unicodedata.category(piece).startswith("P")
    )
