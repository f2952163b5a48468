"""The types of the tools' settings that need more than a range: what each accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    SecretStr,
)

from memoryd.settings.model import Accepts, Number, refusal
from memoryd.tools.secrets import REFERENCE_FORMS, MalformedReferenceError, SecretReference

_LONE_WORD_WEIGHT = 0.8
MAX_ITEMS = 1000
"""The most items of a list or map."""
_MAX_WORD_CHARACTERS = 200
_MAX_EXTENSION_CHARACTERS = 32
_MAX_URL_CHARACTERS = 2048
_MAX_EMAIL_CHARACTERS = 254

_EXTENSION = re.compile(r"(\.[a-z0-9_+-]+)+")
_EMAIL = re.compile(r"[^\s@,;:<>()\[\]\"\\]+@\w([\w-]*\w)?(\.\w([\w-]*\w)?)*")


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    words = [word.strip() for word, _ in pairs]
    if len(set(words)) < len(words):
        raise refusal("expected each word once")
    return {word: weight for word, (_, weight) in zip(words, pairs, strict=True)}


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique_pairs)
    except RecursionError:
        raise ValueError from None


def _keywords(value: object) -> dict[str, object]:
    """Read JSON, or `word=0.9,word`; each word 1 to 200 characters, trimmed, and once."""
    if isinstance(value, str):
        value = _json(value) if value.startswith(("{", "[")) else value.split(",")
    if isinstance(value, list):
        value = _unique_pairs([_weighted_word(item) for item in value])
    if not isinstance(value, Mapping) or len(value) > MAX_ITEMS:
        raise ValueError
    if not all(isinstance(word, str) for word in value):
        raise ValueError
    keywords = _unique_pairs(list(value.items()))
    if not all(0 < len(word) <= _MAX_WORD_CHARACTERS for word in keywords):
        raise ValueError
    return keywords


def _weighted_word(item: object) -> tuple[str, object]:
    if not isinstance(item, str):
        raise ValueError  # noqa: TRY004 - pydantic collects ValueError, a TypeError would escape
    word, equals, weight = item.rpartition("=")
    return (word, weight.strip()) if equals else (item, _LONE_WORD_WEIGHT)


def _extensions(value: object) -> tuple[str, ...]:
    """Read JSON or a comma-separated list into `.pdf`: lower case, a leading dot, each once."""
    if isinstance(value, str):
        value = _json(value) if value.startswith("[") else value.split(",")
    if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
        raise ValueError
    return tuple(dict.fromkeys(map(_extension, value)))


def _extension(item: object) -> str:
    if not isinstance(item, str):
        raise ValueError  # noqa: TRY004 - as in _weighted_word
    text = item.strip().lower()
    text = text if text.startswith(".") else f".{text}"
    if len(text) > _MAX_EXTENSION_CHARACTERS or not _EXTENSION.fullmatch(text):
        raise ValueError
    return text


def _email(text: str) -> str:
    if text and (len(text) > _MAX_EMAIL_CHARACTERS or not _EMAIL.fullmatch(text)):
        raise ValueError
    return text


def _url(text: str) -> str:
    if not text:
        return text
    url = urlsplit(text)
    # `port` raises ValueError by itself for a bad port.
    well_formed = url.scheme in ("http", "https") and url.hostname and url.port != 0
    if not well_formed or len(text) > _MAX_URL_CHARACTERS or not re.fullmatch(r"[!-~]+", text):
        raise ValueError
    if url.username is not None or url.password is not None:
        # Callers see the endpoint, and would see a credential in it.
        raise refusal("expected a URL without user name and password")
    return text


def secret_reference(value: object) -> SecretReference:
    if isinstance(value, SecretReference):
        return value
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError  # noqa: TRY004 - as in _weighted_word
    try:
        return SecretReference.parse(text)
    except MalformedReferenceError as error:
        raise refusal(str(error)) from None


Fraction = Annotated[Number, Field(ge=0, le=1)]
Keywords = Annotated[
    Mapping[str, Fraction],
    BeforeValidator(_keywords),
    AfterValidator(MappingProxyType),
    PlainSerializer(dict),
    Accepts(
        'JSON such as {"urgent": 1.0}, or word=0.9,word; weights from 0 to 1, 0.8 if left out; at'
        f" most {MAX_ITEMS:,} words of {_MAX_WORD_CHARACTERS} characters"
    ),
]
Extensions = Annotated[
    tuple[str, ...],
    BeforeValidator(_extensions),
    Accepts(
        'JSON such as [".pdf", ".md"], or .pdf,.md; the dot may be left out; at most'
        f" {MAX_ITEMS:,} extensions of {_MAX_EXTENSION_CHARACTERS} characters"
    ),
]
Email = Annotated[
    str, AfterValidator(_email), Accepts("one e-mail address of at most 254 characters, or nothing")
]
HttpUrl = Annotated[
    str,
    AfterValidator(_url),
    Accepts(
        "an http:// or https:// URL with a host, without a password, of at most"
        f" {_MAX_URL_CHARACTERS:,} characters; or nothing"
    ),
]
ApiKey = Annotated[
    InstanceOf[SecretReference],
    BeforeValidator(secret_reference),
    # A dump is for people: it has where the secret is.
    PlainSerializer(str),
    Accepts(f"{REFERENCE_FORMS}; outside production also the secret itself"),
]
