"""Known terms that are spelled much like one that is not: by the trigrams they share.

A query misspells a word, has it in a form that no stemmer takes for the same, or has a part of a
compound. What it means is then still found, for less.
"""

from __future__ import annotations

from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LEAST_LETTERS = 5
"""Shorter words are like too many others."""

LEAST_SIMILARITY = 0.6
"""Of the trigrams of both, twice the share that they have in common (Dice's coefficient)."""

LEAST_OF_A_SLIP = 0.4
"""Where the words differ by one slip: in a short one that spoils half of the trigrams."""

_LEAST_SHARED = LEAST_OF_A_SLIP / (2 - LEAST_OF_A_SLIP)
"""Of a word's trigrams, by a term that is as like as that: it has at least those that it shares."""

_EDGE = "\n"
"""Stands before and behind each term, and in none."""

_RADIX = 0x110000
"""How many code points there are."""

_NUMBERS = (1 << 31) - 1
"""Trigrams are told apart by their remainder; the few that share one do little harm."""

_HALF = 32
_LOWER = (1 << _HALF) - 1

_MOST_PIECES = 8

_SWAPPED = 2
"""Letters, in a slip of the pen."""


class Alike(NamedTuple):
    """A known term and its similarity, above 0 and at most 1."""

    term: str
    similarity: float


class Spellings:
    """The terms of a vocabulary by their trigrams, which is only ever added to.

    The pieces in which terms came are put together now and then, so that adding costs as little as
    what is added. Safe for use by several threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._terms: list[str] = []
        self._counts = np.zeros(0, np.int64)
        """How many different trigrams each term has."""
        self._pieces: list[NDArray[np.int64]] = []
        """Each in order: the number of a trigram, and in the lower half a term that has it."""

    @property
    def nbytes(self) -> int:
        """What is held, in bytes, but the terms themselves."""
        return sum(held.nbytes for held in (*self._pieces, self._counts)) + 8 * len(self._terms)

    def like(self, term: str, vocabulary: Mapping[str, object]) -> list[Alike]:
        """The terms of a vocabulary that are like one that is not there, in no order.

        It is the same vocabulary at each call, with more terms behind those that it had.
        """
        with self._lock:
            if len(vocabulary) > len(self._terms):
                self._add([*islice(vocabulary, len(self._terms), None)])
            return self._like(term)

    def _add(self, terms: list[str]) -> None:
        """Take in more terms; those that can be like no other get places only."""
        begin = len(self._terms)
        self._terms += terms
        numbers, places = _trigrams(terms)
        held = numbers << _HALF | places + begin
        held.sort()
        held = held[np.diff(held, prepend=-1) > 0]
        counts = np.bincount((held & _LOWER) - begin, minlength=len(terms))
        self._counts = np.append(self._counts, counts)
        self._pieces.append(held)
        if len(self._pieces) > _MOST_PIECES:
            self._pieces = [np.sort(np.concatenate(self._pieces))]

    def _like(self, term: str) -> list[Alike]:
        if not is_comparable(term):
            return []
        wanted = _numbers(term)
        bounds = [bound << _HALF for number in wanted for bound in (number, number + 1)]
        holders = []
        for held in self._pieces:
            ends = held.searchsorted(bounds).tolist()
            pairs = zip(ends[::2], ends[1::2], strict=True)
            holders += [held[begin:end] for begin, end in pairs if begin < end]
        if not holders:
            return []
        shared = np.bincount(np.concatenate(holders) & _LOWER)
        near = (shared >= _LEAST_SHARED * len(wanted)).nonzero()[0]
        found = []
        for place, common in zip(near.tolist(), shared[near].tolist(), strict=True):
            similarity = 2 * common / (int(self._counts[place]) + len(wanted))
            known = self._terms[place]
            if similarity >= LEAST_SIMILARITY or (
                similarity >= LEAST_OF_A_SLIP and is_a_slip(term, known)
            ):
                found.append(Alike(known, similarity))
        return found


def is_comparable(term: str) -> bool:
    """Whether a term is a word long enough; numbers, names with digits and ids are none."""
    return len(term) >= LEAST_LETTERS and term.isalpha()


def is_a_slip(one: str, other: str) -> bool:
    """Whether words differ by one letter more, less or changed, or by two that are swapped."""
    begin = _shared_head(one, other)
    one, other = one[begin:], other[begin:]
    end = _shared_head(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    return max(len(one), len(other)) <= 1 or (len(one) == _SWAPPED and one == other[::-1])


def _shared_head(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _numbers(term: str) -> set[int]:
    """The trigrams of one comparable term, as numbers."""
    letters = [*map(ord, (*_EDGE, *term, *_EDGE))]
    triples = zip(letters, letters[1:], letters[2:], strict=False)
    return {((a * _RADIX + b) * _RADIX + c) % _NUMBERS for a, b, c in triples}


def _trigrams(terms: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The trigrams of each comparable term, as numbers, and the place of the term."""
    joined = _EDGE + _EDGE.join(term if is_comparable(term) else "" for term in terms) + _EDGE
    letters = np.frombuffer(joined.encode("utf-32-le"), np.uint32).astype(np.int64)
    is_edge = letters == ord(_EDGE)
    numbers = (letters[:-2] * _RADIX + letters[1:-1]) * _RADIX + letters[2:]
    places = np.cumsum(is_edge)[1:-1] - 1
    inside = ~is_edge[1:-1]
    return numbers[inside] % _NUMBERS, places[inside]
