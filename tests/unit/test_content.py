"""The contract's rules for contents, by examples."""

import hashlib

import pytest

from memoryd.domain import markup
from memoryd.domain.content import (
    MAX_CONTENT_CHARS,
    ContentPolicy,
    ContentRefused,
    Hashes,
    clean,
    content_hash,
    hashes_of,
    normalise,
    simhash,
)


def sanitised(text: str) -> str:
    """Sanitise within other text, so that an empty result is not refused, and check both ends."""
    result = clean(f"[ {text}", ContentPolicy.SANITIZE)
    assert result.startswith("[")
    return result[1:].strip()


@pytest.mark.parametrize(
    "text",
    [
        "x < 5 && y > 3",
        "I <3 cats, and </3 dogs",
        "List<int>",
        "Map<String, List<int>>",
        "std::vector<std::string> v; v << 1 >> 2;",
        "JavaScript: The Good Parts",
        "JavaScript:\nThe Good Parts",
        "It is written in javascript:",
        "a <- b -> c, a <= b, a <=> b, <<EOF, <>",
        "<file>",
        "cp <path> <path>, wait <ms>",
        "turn <the lamp on>",
        "<a@b.c>",
        "<https://example.org/x?y=1&z=2>",
        "<!here> and <?> and <!>",
        "a < b, if x <10, x <y, vector<file and so on",
        "a < b and c",
        "&amp; &lt;b&gt; &#60;script&#62; a & b, R&D",
        "metadata:text/html, data:image/png;base64,AA== and data: text/html",
        "# Title\n\n- *item* `code`\n> quote\r\n\r\n[link](https://example.org)",
        "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 नमस्ते مرحبا \u202eשלג\u202c ไทย 漢字\u3000かな\u2028x\u00a0y\u200bz",
        'onclick=alert(1) is text, and so is href="x"',
        "text<emphasis>s</emphasis>",
    ],
)
def test_text_stays_unchanged(text: str) -> None:
    assert sanitised(text) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a<b>c</b>d", "acd"),
        ("a<br/>b", "ab"),
        ("<P CLASS='x > y'\n>One</P >", "One"),
        ('<a href="https://example.org">link</a>', "link"),
        ('<a title="unclosed>link</a> and more', "link and more"),
        ("</p>x</br>", "x"),
        ("a <b and c> d", "a d"),  # for a parser, an element with two attributes
        ("a <b and List<int>", "a and List<int>"),
        ("<!doctype html>a<!-- <b> > -->b<!-->c", "abc"),
        ("a <!-- unclosed", "a unclosed"),
        ("<![CDATA[a <b>c</b>]]> d", "a c d"),
        ("<![CDATA[a", "a"),
        ('<?xml version="1.0"?>a', "a"),
        ("<?php $a->b", "<?php $a->b"),
        # Words in elements that run no code stay.
        ("for <template>Dear {{name}}</template> mails", "for Dear {{name}} mails"),
        ("<object><name>Ada</name></object>", "<name>Ada</name>"),
        ("a<object data=x>b<object>c</object>d</object>e", "abcde"),
        ("a<applet code=x>b</applet>c", "abc"),
        ("a<iframe srcdoc='<script>alert(1)</script>'>b</iframe>c", "abc"),
        ("a<template><p>b</p></template>c<embed src=x>", "abc"),
        ("<math><mi>x</mi><mo>=</mo><mn>1</mn></math>", "x=1"),
        ("<svg><circle r=1/><svg/><text>b</text></svg> cp <path>", "b cp <path>"),
        ("a<svg><path d='M0 0'><set to=x>b<svg><g>c", "abc"),
    ],
)
def test_markup_is_removed_without_leaving_a_space(text: str, result: str) -> None:
    assert sanitised(text) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a<script>alert(1)</script>b", "ab"),
        ("a<script>if (x < y) '<p>'</script >b", "ab"),
        ("a<STYLE>p {}</STYLE>b", "ab"),
        ("a<svg onload=alert(1)><script>alert(1)</script>b</svg>c", "abc"),
        ("a<math><mtext><img src=x onerror=alert(1)></math>b", "ab"),
        ("a<svg><style>p {}</style>b", "ab"),
        # Code without its own end tag loses only its start tag.
        ("load a `<script>` late, by defer", "load a `` late, by defer"),
        ("a<script>b<b>c</b> <a href=javascript:x>d", "abc d"),
        ("a<script>b<script>alert(1)</script>c", "abc"),
        ("a<style>b</script>c", "abc"),
        ("a<script>alert(1)</script and words", "a and words"),
        ("a<script>alert(1)</script x='>", "a"),
        ("a<iframe src=x>b", "ab"),
        ("a<svg onload=alert(1)>b", "ab"),
        ("a<svg/onload=alert(1)>b", "ab"),
        # Event handlers in what is not an HTML element.
        ("<file onclick=alert(1)>a", "a"),
        ("<a@b.c/ONCLICK = 'alert(1)'>a", "a"),
        ('<file x=">" onclick=alert(1)>a', "a"),
        ("</3 '> <file onclick=alert(1)> '", "</3 '> '"),
        ('<file x=" onclick=1">a', '<file x=" onclick=1">a'),
        # Disguises.
        ("<scr<b>ipt>alert(1)</scr</b>ipt>a", "a"),
        ("<scr<!-- -->ipt>alert(1)</script>a", "a"),
        ("<scr<script>ipt>alert(1)</scr</script>ipt>a", "a"),
        ("<<script>script>alert(1)<</script>/script>a", "a"),
        ("<b>a</b></script>b" + "</svg>" * 20, "ab"),
        ("<scr\0ipt>alert(1)</\x01scr\x7fipt>a", "a"),
        ("<scr\0eam>a", "<scr eam>a"),
        ('<file x="<script>alert(1)</script>">', '<file x="">'),
        ('<noscript><p title="</noscript><img src=x onerror=alert(1)>">a', "a"),
        ('<a href="&#106;avascript:alert(1)">a</a>', "a"),
        ('<IMG """><SCRIPT>alert(1)</SCRIPT>">', '">'),
    ],
)
def test_active_content_is_removed_with_its_payload(text: str, result: str) -> None:
    assert sanitised(text) == result


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "vbscript:msgbox(1)",
        "data:text/html,<p>x</p>",
        "DATA:text/html;base64,PHA+",
        "x-javascript:alert(1)",
        "java\tscr\nipt\r:alert(1)",
        "java\0script:\x01alert(1)",
        "java&#115;cript:alert(1)",
        "java&#x0000073;CRIPT&colon;alert(1)",
        "&amp;#106;avascript&amp;colon;alert(1)",
        "&#38;#106;java&Tab;script&NewLine;:alert(1)",
        "java<b></b>script:alert(1)",
        "javajavascript:x\nscript:alert(1)",
    ],
)
def test_script_uris_go_up_to_the_next_white_space(uri: str) -> None:
    result = sanitised(f"see {uri} there")
    assert result.startswith("see ")
    assert result.endswith(" there")
    assert "script" not in result.lower()
    assert "alert" not in result
    assert "html" not in result


@pytest.mark.parametrize(
    "uri",
    [
        "data:text/htmljavascript:x,<script>alert(1)</script>",
        "data:text/htmldata:text/html,x,<script>alert(1)</script>",
        "data:text/htmldata:text/htmldata:text/html",
        "data:text/html5javascript:x",
        "metadata:text/htmlvbscript:x",
        "data:text/html<b></b>javascript:x",
        "DATA:text&sol;html&#106;avascript:x",
        "data:te\0xt/htmlda\tta:text/html,x",
        "data:text/htmjavascript:x\nl,javascript:alert(1)",
        "javascript:vbscript:data:text/html",
    ],
)
def test_script_uris_that_are_spliced_leave_no_scheme(uri: str) -> None:
    result = sanitised(f"see {uri} there")
    assert result.startswith("see ")
    assert result.endswith(" there")
    assert "script:" not in result
    assert "data:text/html" not in result


@pytest.mark.parametrize(
    "text",
    [
        "the schemes data:text/html and javascript: are refused",
        "metadata:text/html,x data:text/html5,x data:text/html-x x.data:text/html,x",
        "metadata:text/html;x=data:text/html5",
    ],
)
def test_text_that_is_not_a_script_uri_stays(text: str) -> None:
    assert sanitised(text) == text


@pytest.mark.parametrize("name", sorted(markup.HTML_ELEMENTS))
def test_a_tag_cut_off_by_the_end_is_removed(name: str) -> None:
    capital = name.upper()
    for tag in (
        f"<{name}",
        f"<{name}/",
        f"<{capital} ",
        f"</{name}",
        f"</{name} x='",
        f"<{name}\n",
    ):
        assert sanitised(f"note: {tag}") == "note:" + (" x='" if "'" in tag else ""), tag
    for tag in (f"<{name} src=x onerror=alert(1)", f'<{name} href="javascript', f"<{name} x='>"):
        assert sanitised(f"note: {tag}") == "note:", tag
    assert sanitised(f"note: <{name} and its words") == "note: and its words"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("if a <b and c", "if a < b and c"),
        ("while (x)<p && i<s", "while (x)< p && i< s"),
        ("a[0] <i and b == 1", "a[0] < i and b == 1"),
        ("a<b", "a< b"),
        ("where a <b\nand c = 'x'", "where a < b\nand c = 'x'"),
        ("click <a href=x", "click"),  # no comparison has a value there
    ],
)
def test_a_comparison_at_the_end_keeps_its_words(text: str, result: str) -> None:
    assert sanitised(text) == result


def test_a_script_uri_that_only_decoding_shows_is_disarmed() -> None:
    assert sanitised("see java&#&#49;15;cript:alert(1)") == "see java##49;15;criptalert(1)"
    harmless = "AT&amp;T, &lt;b&gt;, &#&#49;15; and JavaScript&colon; The Good Parts"
    assert sanitised(harmless) == harmless


def test_controls_become_spaces_and_blanks_one() -> None:
    text = " \u3000a\0b\x0b\x0cc\x1f\x7f\x85d \t\t e\tf \n\n\r\n \tg\n"
    assert clean(text, ContentPolicy.SANITIZE) == "a b c d e f \n\n\r\n g"


@pytest.mark.parametrize("levels", [4, 100])
def test_nested_disguises_end_in_harmless_text(levels: int) -> None:
    text = "say " + "<scr" * levels + "<b>" + "ipt>" * levels + " javascript:alert(1)"
    result = sanitised(text)
    assert "<script" not in result
    assert "javascript:" not in result
    assert sanitised(result) == result


def test_markup_found_by_the_second_parser_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "knows_element", lambda _: True)
    assert clean("a <file> b", ContentPolicy.SANITIZE) == "a file> b"


@pytest.mark.parametrize(
    ("text", "known"),
    [("a < b <file> </3", False), ("a<b>c", True), ("</p>", True), ("<svg>", True), ("<b", False)],
)
def test_the_second_parser_knows_elements(text: str, known: bool) -> None:  # noqa: FBT001 - a table
    assert markup.knows_element(text) is known


@pytest.mark.parametrize("policy", ContentPolicy)
def test_nothing_is_refused_by_every_policy(policy: ContentPolicy) -> None:
    with pytest.raises(ContentRefused, match="empty"):
        clean("", policy)


@pytest.mark.parametrize("text", [" \n\t", "\0", "<br>", "<script>alert(1)</script>", "<!---->"])
def test_content_that_sanitises_to_nothing_is_refused(text: str) -> None:
    for policy in (ContentPolicy.SANITIZE, ContentPolicy.STRICT):
        with pytest.raises(ContentRefused, match="send plain text"):
            clean(text, policy)


def test_strict_refuses_what_sanitize_would_change() -> None:
    assert clean("x < 5", ContentPolicy.STRICT) == "x < 5"
    for text in ("a  b", "a ", "a\tb", "<b>a</b>", "a\0b", "see javascript:x"):
        with pytest.raises(ContentRefused, match="MEMORYD_CONTENT_POLICY=sanitize") as refusal:
            clean(text, ContentPolicy.STRICT)
        assert str(refusal.value).startswith("The content holds markup, ")


def test_verbatim_stores_content_unchanged() -> None:
    for text in (" ", "\t<script>alert(1)</script>\x01 ", "javascript:x"):
        assert clean(text, ContentPolicy.VERBATIM) == text
    with pytest.raises(ContentRefused, match="NUL"):
        clean("a\0b", ContentPolicy.VERBATIM)


def test_length_is_checked_by_the_caller() -> None:
    text = "x" * (MAX_CONTENT_CHARS + 1)
    assert clean(text, ContentPolicy.SANITIZE) == text


@pytest.mark.parametrize(
    ("content", "normalised"),
    [
        ("  The\u00a0USER \r\n likes\u2003Tea!?. ", "the user likes tea"),
        ("a ! .", "a ! "),  # once each: no second trimming
        ("a.b,c", "a.b,c"),
        ("...", ""),
        ("e.g. (this)", "e.g. (this)"),
        ("Straße ΟΔΟΣ İ", "straße οδος i\u0307"),  # no case folding
        ("e\u0301 \u00e9", "e\u0301 \u00e9"),  # no NFC
        ("a\x1cb", "a b"),
    ],
)
def test_normalised_content(content: str, normalised: str) -> None:
    assert normalise(content) == normalised


def test_hashes_are_the_contracts() -> None:
    # The first eight bytes of SHA-256 of "tea", as a little-endian number.
    tea = hashlib.sha256(b"tea").digest()
    assert simhash("tea") == simhash("tea tea") == tea[7::-1].hex()
    assert simhash("") == simhash(" ") == "0" * 16
    # With two different words a bit needs both.
    coffee = hashlib.sha256(b"coffee").digest()
    both = int.from_bytes(tea[:8], "little") & int.from_bytes(coffee[:8], "little")
    assert simhash("tea coffee") == f"{both:016x}"
    assert simhash("tea\u2028x") == hashlib.sha256("tea\u2028x".encode()).digest()[7::-1].hex()

    content = "The user likes  Tea."
    normalised = "the user likes tea"
    assert content_hash(normalised) == hashlib.sha256(normalised.encode()).hexdigest()
    assert hashes_of(content) == Hashes(content_hash(normalised), simhash(normalised))


def test_hashes_match_other_implementations() -> None:
    hashes = hashes_of("User prefers dark mode, and answers in German!")
    assert hashes == Hashes(
        "31c038ab4cdb4ad9fa37f7eee96641c6230a7afa700508c2d214aff025016bb3", "8d8260250b105960"
    )
