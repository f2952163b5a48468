"""What becomes of a content before it is stored: sanitising, normalising, hashes.

Pure functions of text. The contract fixes the normalised content and both hashes bit for bit, since
other systems hold hashes made the same way; `markup` knows what markup is.

Texts are any that UTF-8 can carry (gRPC lets in no others); a lone surrogate is a `UnicodeError`.
"""

import hashlib
import re
from dataclasses import dataclass

from memoryd.domain import markup
from memoryd.domain.records import ContentPolicy

MAX_CONTENT_CHARS = 16_384
"""What a stored content may hold, in characters; callers check it on the cleaned text."""

MAX_RAW_CHARS = 131_072
"""What a caller may send as a content, in characters; callers refuse more before they clean it.

Eight times what may be stored leaves room for markup, and bounds the time that cleaning takes."""

# Honest text is stable after two rounds. Each further one undoes one layer of nested disguise.
_MAX_ROUNDS = 8

_KEYED = "key:"
"""What no hash of a content begins with."""

_CONTROL = re.compile(f"[{markup.CONTROLS}]")
_SUSPECT = re.compile(rf"[<&:\t{markup.CONTROLS}]")
"""Without any of these there is neither markup nor a script URI, nor anything to trim inside."""
_BLANKS = re.compile(r"[ \t]+")
# Without these characters no text holds a tag, a URI or a character reference.
_DELETE_SYNTAX = str.maketrans("", "", "<:&")

_SIMHASH_BITS = 64
_NEW_SHA256 = hashlib.sha256()

# Sums of single bits, each in a lane of eight within an integer.
_SPREAD_TOKENS = 64
"""Of a longer text the words are not kept: most would be new, and would drive out others."""
_SPREAD_CACHE = 8192
"""Words kept, of some 250 bytes each."""
_SPREAD_BYTE = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
_ONE_A_LANE = int.from_bytes(b"\1" * _SIMHASH_BITS, "little")
_BELOW_TOP_BIT = 0x7F
_TOP_BIT = bytes(ord("0") + (byte >> 7) for byte in range(256))
"""By a lane: its topmost bit, as a digit."""


class ContentRefused(ValueError):
    """The content cannot be stored. The message says why and what helps; it never quotes it."""


class NothingLeft(ContentRefused):
    """There is no text, or none is left of it."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """Both hashes of a content: 64 and 16 lower-case hex digits."""

    content_hash: str
    semantic_hash: str


def clean(text: str, policy: ContentPolicy) -> str:
    """Give the content to store for what a caller sent.

    `SANITIZE` drops markup and control characters, `STRICT` insists that there are none, `VERBATIM`
    keeps the text as it came. Length is not checked here, so that markup does not count.

    Raises `ContentRefused` for text that the policy refuses, `NothingLeft` where nothing is left to
    store.
    """
    if policy is ContentPolicy.VERBATIM:
        if "\0" in text:
            raise ContentRefused(
                "The content holds a NUL character, which cannot be stored; remove it."
            )
        cleaned = text
    else:
        cleaned = _sanitise(text)
    if not cleaned:
        raise NothingLeft(
            "The content is empty, or nothing is left of it without markup, control characters and"
            " white space at its ends; send plain text."
        )
    if policy is ContentPolicy.STRICT and cleaned != text:
        raise ContentRefused(
            "The content holds markup, a script URI, control characters, tabs, runs of spaces, or"
            " white space at its ends; send it as plain text without them, or let the service"
            " remove them with MEMORYD_CONTENT_POLICY=sanitize."
        )
    return cleaned


def _sanitise(text: str) -> str:
    # Beforehand, so that a line's end alone costs no second round.
    text = text.strip()
    if "  " not in text and not _SUSPECT.search(text):
        return text
    for _ in range(_MAX_ROUNDS):
        before, text = text, _sanitise_once(text)
        if text == before:
            break
    else:
        return _disarm(text)
    # What is longer is not stored anyway, and the second reader is not linear.
    if len(text) > MAX_CONTENT_CHARS:
        return text
    # With what would complete a tag at the end.
    hostile = markup.knows_element(f"{text}>") or markup.hides_script_uri(text)
    return _disarm(text) if hostile else text


def _sanitise_once(text: str) -> str:
    if _CONTROL.search(text):
        text = _CONTROL.sub(" ", markup.join_split(text))
    return _trim(markup.strip_script_uris(markup.strip_markup(text)))


def _disarm(text: str) -> str:
    """Give up on finding markup in a text made to hide it: nothing in it can be any after this."""
    return _trim(text.translate(_DELETE_SYNTAX))


def _trim(text: str) -> str:
    if "\t" in text or "  " in text:
        text = _BLANKS.sub(" ", text)
    return text.strip()


def normalise(content: str) -> str:
    """Give the form in which contents are compared (the contract's "normalised content").

    Lower case by `str.lower` (no case folding, no NFC), then each run of white space one space and
    the ends trimmed, then trailing `.,!?;:` removed: once each, so that ``Yes !`` becomes ``yes ``.
    White space is what `str.isspace` says, which is Unicode's and the separators U+001C to U+001F;
    those reach it under `VERBATIM` only.
    """
    return " ".join(content.lower().split()).rstrip(".,!?;:")


def content_hash(normalised: str) -> str:
    """Give the SHA-256 of the normalised content's UTF-8, as 64 hex digits."""
    return hashlib.sha256(normalised.encode()).hexdigest()


def keyed_hash(key: str, of_content: str) -> str:
    """What a memory with a key has in the place of its content's hash; as long, and none itself.

    So a memory with a key is never taken for one without, nor for one with another key, by a server
    that knows no keys either.
    """
    digest = hashlib.sha256(f"{key}\0{of_content}".encode()).hexdigest()
    return _KEYED + digest[: -len(_KEYED)]


def is_keyed_hash(found: str) -> bool:
    """Whether `keyed_hash` made it."""
    return found.startswith(_KEYED)


def simhash(normalised: str) -> str:
    """Give the 64-bit SimHash of a normalised content, as 16 hex digits.

    After Charikar, "Similarity estimation techniques from rounding algorithms" (2002), with the
    contract's choices: tokens are the words between spaces, repeats counted, each weighing ±1 a
    bit; bit i of a token is bit ``i % 8``, least significant first, of byte ``i // 8`` of its
    SHA-256; the sum's sign gives bit i of the hash, and a sum of zero leaves it unset.
    """
    tokens = [token for token in normalised.encode().split(b" ") if token]
    if len(tokens) > _SPREAD_TOKENS:
        return _simhash_of_many(tokens)
    # All 64 sums at once, each in a lane of its own within one integer. With as much added as a
    # majority falls short of the lane's topmost bit, that bit tells.
    total = _ONE_A_LANE * (_BELOW_TOP_BIT - len(tokens) // 2) + sum(map(_spread_of, tokens))
    majority = total.to_bytes(_SIMHASH_BITS, "big").translate(_TOP_BIT)
    return f"{int(majority, 2):016x}"


class _Spread(dict[bytes, int]):
    """The bits of a token, each in its lane; texts repeat most of their words.

    Emptied when it is full. To drop what was used least would be to write down each use, in as
    many places of memory as a text has words.
    """

    def __missing__(self, token: bytes) -> int:
        head = _sha256(token)[: _SIMHASH_BITS // 8]
        spread = int.from_bytes(b"".join([_SPREAD_BYTE[byte] for byte in head]), "little")
        if len(self) >= _SPREAD_CACHE:
            self.clear()
        self[token] = spread
        return spread


_spread_of = _Spread().__getitem__


def _simhash_of_many(tokens: list[bytes]) -> str:
    """The same where words are too many to be kept."""
    import numpy as np  # noqa: PLC0415  a tenth of an idle server's memory, loaded once needed

    heads = np.frombuffer(b"".join(map(_sha256, tokens)), np.uint8).reshape(len(tokens), -1)
    bits = np.unpackbits(heads[:, : _SIMHASH_BITS // 8], axis=1, bitorder="little")
    ones = np.add.reduce(bits, axis=0, dtype=np.uint32)
    majority = np.packbits(ones > len(tokens) // 2, bitorder="little")
    return majority.tobytes()[::-1].hex()


def _sha256(token: bytes) -> bytes:
    sha256 = _NEW_SHA256.copy()  # made a sixth faster than a new one
    sha256.update(token)
    return sha256.digest()


def hashes_of(content: str) -> Hashes:
    """Give both hashes of a content, as it is stored."""
    normalised = normalise(content)
    return Hashes(content_hash(normalised), simhash(normalised))
