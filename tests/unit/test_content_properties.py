"""What holds for every text: hypothesis makes hostile texts, html5lib parses the results.

`HYPOTHESIS_PROFILE=long` runs 25 times as many examples.
"""

import hashlib
import html
import os
import re
from collections.abc import Iterator
from unittest import mock
from xml.etree.ElementTree import Element

import html5lib  # type: ignore[import-untyped]  # html5lib ships no types
import nh3
import pytest
from html5lib import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.domain import content
from memoryd.domain.content import ContentPolicy, ContentRefused, clean, normalise, simhash

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
PROFILE = settings(max_examples=5_000 if IS_LONG else 200, deadline=None)

FRAGMENTS = r"""
    < </ <! <? > /> <!-- --> --!> <![CDATA[ ]]> <!doctype <?x ?> & ; &# &#106; &#x6A; &amp;#106;
    &colon; &Tab; &lt; = == " ' ` / : , . - script scr ipt <script <script> </script> </script style
    <style> </style> svg <svg <svg> </svg> math <math> <mtext> <mglyph> <foreignObject> <path>
    </path> <text iframe <iframe object <object> </object> template <template> <title> <textarea>
    </textarea> <plaintext> <noscript> </noscript> <xmp> b i a p <b <b> </b> <a <a> <p </p> </br>
    <img <image <br/> <select> <option> <table> <td> <form> <input <base <link <meta <li> <h1>
    <details <frameset> <body <file <file> <a@b.c> <x </x> <s t:x> on click onclick onclick=
    onerror=alert(1) one on= href= src=x title=" title=' srcdoc= java javascript javascript:
    JaVaScRiPt: vbscript: data: data:text/html, data:text/html text/html metadata: script: j
    avascript: alert(1) x y 3 5 && || List<int> x<5 <3 1<b x<p &&i<s <img/ <y é 😀 م
"""
BLANKS_AND_MARKS = list(" \t\n\r\f\0\x01\x1f\x7f\x85\u0301\u200b\u2028\u3000")
HOSTILE = st.lists(
    st.sampled_from(FRAGMENTS.split()) | st.sampled_from(BLANKS_AND_MARKS), max_size=40
).map("".join)
PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg><set onbegin=alert(1) attributeName=x></svg>",
    '<math><mtext><a xlink:href="javascript:alert(1)">y</a></math>',
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    '<a href="data:text/html,<script>alert(1)</script>">x</a>',
    "vbscript:msgbox(1)",
    "<body onload=alert(1)",
)


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """Make active content with up to four layers of disguise."""
    text = draw(st.sampled_from(PAYLOADS))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(text)))
        match draw(st.integers(0, 7)):
            case 0:
                text = "".join(draw(st.sampled_from((c.lower(), c.upper()))) for c in text)
            case 1:
                text = html.escape(text)
            case 2:
                text = "".join(f"&#{ord(c)};" if draw(st.booleans()) else c for c in text)
            case 3:
                text = text[:place] + draw(st.sampled_from(BLANKS_AND_MARKS)) + text[place:]
            case 4:
                text = text[:place] + draw(st.sampled_from(PAYLOADS)) + text[place:]
            case 5:
                text = (
                    text[:place] + draw(st.sampled_from(("<b>", "</p>", "<!-- -->"))) + text[place:]
                )
            case 6:
                text = text[:place]
            case 7:
                text = draw(st.sampled_from(("<", "<file x='", '"', "<!--", "<p title="))) + text
    return text


SCHEMES = (
    *("javascript:", "vbscript:", "data:text/html", "metadata:text/html", "DATA:text/html;"),
    *("java\tscript:", "data&colon;te\0xt/html", "data:text/h&#116;ml", "vb\nscript&#58;"),
)
SPLICED = st.lists(
    st.sampled_from((*SCHEMES, "x", "-", ",x", "5", "<b>", "</p>", "<b", "&")), max_size=8
).map("".join)
"""Nested script URIs, with what may stand between them within a word."""

COMPLETIONS = ("", ">", '">', "'>", " x>", "/>", "</p>", "<p>more</p>", ' title="x">', "-->", "\n>")
"""What may follow a content in a page; none of it is active."""

ANY_TEXT = HOSTILE | disguised() | st.text()
NOT_PLAIN = re.compile("[<&]|script[\t\n\r]*:|data[\t\n\r]*:", re.IGNORECASE)
PLAIN = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], include_characters="\t\n\r"), max_size=200
).filter(lambda text: not NOT_PLAIN.search(text))
WORDS = st.lists(st.text(max_size=8) | st.sampled_from(["tea", "tea,", "the", "a"]), max_size=30)

# From the parsers' tables, so as not to repeat the module's; html5lib has two drafts of HTML.
ELEMENTS = (
    {name for _, name in constants.specialElements | constants.formattingElements}
    | constants.voidElements
    | constants.cdataElements
    | nh3.ALLOWED_TAGS
) - {"command", "event-source"}
HTML = constants.namespaces["html"]
CONTAINERS = ("div", "td", "select", "template", "button")
SCRIPT, VBSCRIPT, DATA = (
    "[\t\n\r]*".join(start) for start in ("javascript:", "vbscript:", "data:text/html")
)
# `metadata:text/html` and `data:text/html5` are not script URIs.
SCRIPT_URI = re.compile(
    rf"(?:{SCRIPT}|{VBSCRIPT}|(?<![a-z0-9+.-]){DATA}(?![a-z0-9+.-]))\S", re.IGNORECASE
)


def sanitised(text: str) -> str:
    try:
        return clean(text, ContentPolicy.SANITIZE)
    except ContentRefused:
        return ""


def parsed(text: str, containers: tuple[str, ...] = CONTAINERS) -> Iterator[Element]:
    """The elements that a browser would make of the text in any context."""
    for container in containers:
        fragment = html5lib.parseFragment(text, container=container)
        yield from (node for node in fragment.iter() if isinstance(node.tag, str))


@PROFILE
@given(HOSTILE | disguised())
def test_nothing_active_or_known_to_html_is_left(text: str) -> None:
    result = sanitised(text)
    assert not SCRIPT_URI.search(result)
    assert not SCRIPT_URI.search(html.unescape(result))
    assert not SCRIPT_URI.search(html.unescape(html.unescape(result)))
    for node in parsed(result):
        if node.tag == "DOCUMENT_FRAGMENT":
            continue
        namespace, _, name = node.tag[1:].rpartition("}")
        assert namespace == HTML
        assert name not in ELEMENTS
        for attribute, value in node.attrib.items():
            assert not (attribute.startswith("on") and value)
            assert not SCRIPT_URI.search(value)


@PROFILE
@given(HOSTILE | disguised(), st.sampled_from(COMPLETIONS))
def test_surrounding_text_makes_no_tag(text: str, completion: str) -> None:
    own = {node.tag for node in parsed(completion)}
    for node in parsed(f"word {sanitised(text)}{completion}", ("div",)):
        if node.tag not in own:
            assert node.tag.rpartition("}")[2] not in ELEMENTS
            assert not any(name.startswith("on") and value for name, value in node.attrib.items())


@PROFILE
@given(SPLICED, st.sampled_from(SCHEMES[:2]), SPLICED)
def test_no_scheme_of_a_script_uri_is_left(before: str, scheme: str, behind: str) -> None:
    result = sanitised(f"see {before}{scheme}x{behind}")
    for read in (result, html.unescape(result), html.unescape(html.unescape(result))):
        assert not re.search("(?:java|vb)[\t\n]*script:|data:text/html", read, re.IGNORECASE)


@PROFILE
@given(ANY_TEXT | SPLICED)
def test_sanitising_twice_changes_nothing_more(text: str) -> None:
    once = sanitised(text)
    assert sanitised(once) == once


@PROFILE
@given(ANY_TEXT | SPLICED | HOSTILE | disguised())
def test_a_text_that_is_not_suspect_has_nothing_to_sanitise(text: str) -> None:
    with mock.patch.object(content, "_SUSPECT", re.compile("")):  # found in every text
        thorough = sanitised(text)
    assert sanitised(text) == thorough


@PROFILE
@given(PLAIN)
def test_plain_text_loses_runs_of_blanks_and_its_ends_only(text: str) -> None:
    assert sanitised(text) == re.sub("[ \t]+", " ", text).strip()


@PROFILE
@given(ANY_TEXT)
def test_strict_refuses_what_sanitize_would_change(text: str) -> None:
    if text and sanitised(text) == text:
        assert clean(text, ContentPolicy.STRICT) == text
    else:
        with pytest.raises(ContentRefused):
            clean(text, ContentPolicy.STRICT)


@PROFILE
@given(ANY_TEXT)
def test_verbatim_keeps_everything_but_nul(text: str) -> None:
    if text and "\0" not in text:
        assert clean(text, ContentPolicy.VERBATIM) == text
    else:
        with pytest.raises(ContentRefused):
            clean(text, ContentPolicy.VERBATIM)


def reference_simhash(normalised: str) -> str:
    """Compute it literally as the contract says."""
    value = 0
    for i in range(64):
        total = 0
        for token in normalised.split(" "):
            if token:
                digest = hashlib.sha256(token.encode()).digest()
                total += 1 if digest[i // 8] >> (i % 8) & 1 else -1
        if total > 0:
            value += 2**i
    return f"{value:016x}"


@PROFILE
@given(WORDS)
def test_simhash_is_the_contracts(words: list[str]) -> None:
    normalised = normalise(" ".join(words))
    assert simhash(normalised) == reference_simhash(normalised)
