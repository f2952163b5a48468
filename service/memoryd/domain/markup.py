"""Finding and removing markup and script URIs in text that is not markup.

A content may say ``x < 5 && y > 3``, ``List<int>`` or ``<file>``; an HTML sanitiser escapes the
first and drops the others. So tags are found here, by the rules of the HTML tokenizer
(https://html.spec.whatwg.org/multipage/parsing.html#tokenization), and only what names an element
that HTML knows is removed. A `<` is looked at wherever it stands, inside quotes and unknown tags
too, so that what remains is as harmless when it is read out of its context.

Only code goes with what it carries: a script or style with its end tag, event handlers, script
URIs. Any other element loses its tags, and its words stay. A tag that the text ends in goes too.

One call removes what it sees; removing may bring two halves together (``<scr<b>ipt>``), so the
caller repeats until nothing changes. Each pass takes time linear in its text.

nh3 (Ammonia, on a parser that follows the same standard) removes nothing here. It gives the second
opinion, `knows_element`, for which a whole parser reads the result.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import nh3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# HTML Living Standard: the index of elements (https://html.spec.whatwg.org/multipage/indices.html),
# its obsolete elements (.../obsolete.html#non-conforming-features), and `image`, which a parser
# turns into `img`.
_HTML_NAMES = """
    a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption
    cite code col colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img input
    ins kbd label legend li link main map mark math menu meta meter nav noscript object ol optgroup
    option output p picture pre progress q rp rt ruby s samp script search section select
    selectedcontent slot small source span strong style sub summary sup svg table tbody td template
    textarea tfoot th thead time title tr track u ul var video wbr
    acronym applet basefont bgsound big blink center dir font frame frameset image isindex keygen
    listing marquee menuitem multicol nextid nobr noembed noframes param plaintext rb rtc spacer
    strike tt xmp
"""

# SVG 2 (https://www.w3.org/TR/SVG2/eltindex.html), Filter Effects, SVG 1.1's fonts and MathML Core
# (https://www.w3.org/TR/mathml-core/), in lower case: the names that nothing but SVG or MathML has.
_FOREIGN_ELEMENTS = """
    altglyph altglyphdef altglyphitem animate animatecolor animatemotion animatetransform clippath
    color-profile defs feblend fecolormatrix fecomponenttransfer fecomposite feconvolvematrix
    fediffuselighting fedisplacementmap fedistantlight fedropshadow feflood fefunca fefuncb fefuncg
    fefuncr fegaussianblur feimage femerge femergenode femorphology feoffset fepointlight
    fespecularlighting fespotlight fetile feturbulence font-face font-face-format font-face-name
    font-face-src font-face-uri foreignobject glyphref hatchpath hkern lineargradient meshgradient
    meshpatch meshrow missing-glyph mpath polyline radialgradient solidcolor textpath tref tspan
    vkern
    annotation-xml maction maligngroup malignmark menclose merror mfenced mfrac mglyph mlabeledtr
    mmultiscripts mpadded mphantom mprescripts mroot mrow mspace msqrt mstyle msub msubsup msup
    mtable mtext munder munderover
"""

# Names of SVG and MathML that are also words or short for one. They mean an element only after
# `<svg` or `<math`; elsewhere no parser knows `<path>` or `<ms>`, and people write them.
_FOREIGN_WORDS = """
    circle cursor desc discard ellipse filter g glyph hatch line marker mask mesh metadata path
    pattern polygon rect set stop switch symbol text unknown use view
    annotation mi mn mo mover ms mtd mtr none semantics
"""

HTML_ELEMENTS = frozenset(_HTML_NAMES.split())
"""In lower case."""

_ELEMENTS = HTML_ELEMENTS.union(_FOREIGN_ELEMENTS.split())
_ELEMENTS_AFTER_FOREIGN = _ELEMENTS.union(_FOREIGN_WORDS.split())

# Code goes with its element. Every other element loses its tags alone: its words are the caller's.
_CODE = frozenset({"script", "style"})
_FOREIGN = frozenset({"math", "svg"})

# White space of the tokenizer; form feeds have become spaces before.
_WS = r"\t\n\r "

# So many characters tell every known name from a longer one and keep `<a<a<a…` linear.
_LONGEST = 32
_OPENING = re.compile(
    rf"<(?:(?P<end>/?)(?P<name>[a-zA-Z][^{_WS}/>]{{0,{_LONGEST - 1}}})"
    r"|(?P<comment>!--)|(?P<doctype>!(?i:doctype)(?![^\s>]))|(?P<cdata>!(?i:\[CDATA\[))"
    r"|(?P<instruction>\?[a-zA-Z])|(?P<bogus>[!?/]))"
)
_TAG_LIKE = re.compile("</?[a-zA-Z]")
_UNFINISHED = re.compile(r"<[a-zA-Z0-9-]*\Z")
_REST_OF_NAME = re.compile(rf"[^{_WS}/>]*")
# One step through a tag: space, an attribute with a value, or one without. A quote that is never
# closed does not swallow the text, as it would for a parser, but counts as part of a name.
_ATTRIBUTE = re.compile(
    rf"[{_WS}/]++"
    rf"|(?:(?P<handler>[oO][nN][^{_WS}/>=]*+[{_WS}]*+=)|[^{_WS}/>][^{_WS}/>=]*+[{_WS}]*+=)"
    rf"""[{_WS}]*+(?:"[^"]*+"|'[^']*+'|[^{_WS}>"'][^{_WS}>]*+)?"""
    rf"|[^{_WS}/>][^{_WS}/>=]*+"
)
_COMPARED = re.compile("[^<>=]*<")
# A variable's name, what it is compared with before it, and no attribute's value next.
_VARIABLES = frozenset(name for name in _ELEMENTS if len(name) == 1)
_OPERAND = re.compile(rf"[\w)\]][{_WS}]?\Z")
_VALUE_NEXT = re.compile(rf"[{_WS}/]*[^{_WS}/>=]*[{_WS}]*=")
_TAGS_OF = {name: re.compile(rf"(?ai:<(?P<end>/?){name}(?![^{_WS}/>]))") for name in sorted(_CODE)}

# Keeps every known element, without attributes, and nothing else that begins with `<`.
_SECOND_READER = nh3.Cleaner(
    tags=set(_ELEMENTS), clean_content_tags=set(), attributes={}, link_rel=None
)

CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
"""Unicode's category Cc without tab, line feed and carriage return; inside of a character class."""

_DELETE_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)])
_SPLIT_NAME = re.compile(
    rf"<[{CONTROLS}]*/?[{CONTROLS}]*[a-zA-Z](?:[a-zA-Z0-9{CONTROLS}-]*[a-zA-Z0-9])?"
    rf"(?![^{_WS}/>{CONTROLS}])"
)


def _disguised(word: str) -> str:
    """Build the pattern of a word as a URL parser may meet it in an attribute's value.

    Each character may be a character reference, decoded once or twice (``&#106;``, ``&amp;#x6A;``),
    and tabs, line breaks and control characters, or references to them, may stand between: a URL
    parser drops the first two (https://url.spec.whatwg.org/#concept-basic-url-parser).
    """
    ampersand = "&(?:amp;?|#0*38;?|#x0*26;?)?"

    def reference(decimal: str, hexadecimal: str, *names: str) -> str:
        numeric = rf"#(?:0*(?:{decimal})(?!\d)|x0*(?:{hexadecimal})(?![\da-f]));?"
        return f"{ampersand}(?:{'|'.join([numeric, *names])})"

    # Of 0 to 31, and 127; written out one by one they would take half a second to compile.
    control = reference(r"[12]?\d|3[01]|127", r"1?[\da-f]|7f", "tab;", "newline;")
    between = rf"(?:[\t\n\r{CONTROLS}]|{control})*"
    names = {":": ("colon;",), "/": ("sol;",)}
    spelt = []
    for character in word:
        codes = sorted({ord(character), ord(character.upper())})
        numbers = ("|".join(f"{code:{base}}" for code in codes) for base in "dx")
        spelt.append(f"(?:{character}|{reference(*numbers, *names.get(character, ()))})")
    return between.join(spelt)


_SCHEME = re.compile(
    rf"(?ai:{_disguised('javascript:')}|{_disguised('vbscript:')}"
    rf"|(?P<data>{_disguised('data:text/html')}))"
)
_BLANK = re.compile(r"\s")
_OF_LONGER_NAME = re.compile("[a-zA-Z0-9+.-]")
# One of them is in every script URI. Each begins with a literal, which makes it twenty times as
# quick to search for as the URI itself.
_BARE_COLON = re.compile(r":(?<=[aAtT\t\n\r]:)[\t\n\r]*\S")
_REFERENCE = re.compile(r"&(?:amp;?)?(?:#|(?i:colon|sol|tab|newline);)")
_CONTROLS = re.compile(f"[{CONTROLS}]*")


class _Pass:
    """One reading of a text from left to right, dropping markup.

    A method that handles a finding returns the position at which to read on.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces: list[str] = []
        # Everything before has been copied or dropped.
        self._done = 0
        self._elements = _ELEMENTS
        # How many `svg` and `math` elements are open.
        self._foreign = 0
        # What has been dropped stood behind the beginning of a tag.
        self._may_form_tag = False
        # Where each mark that was looked for comes next, so that no search runs twice.
        self._next: dict[str, int] = {}
        # Code elements that no tag of the same name follows.
        self._endless: set[str] = set()
        # No tag is closed from here to the end of the text.
        self._open_ended = False
        # Where the tag or comment ends that a parser, which steps over whole tags, is in.
        self._parsed = 0
        self._may_handle_events = "=" in text and "on" in text.lower()

    def run(self) -> str:
        handle: dict[str | None, Callable[[re.Match[str]], int]] = {
            "name": self._tag,
            "comment": self._comment,
            "doctype": self._doctype,
            "cdata": self._cdata,
            "instruction": self._instruction,
            "bogus": self._bogus_comment,
        }
        position = 0
        while opening := _OPENING.search(self._text, position):
            position = handle[opening.lastgroup](opening)
        self._pieces.append(self._text[self._done :])
        return "".join(self._pieces)

    def _drop(self, start: int, end: int) -> int:
        if not self._may_form_tag:
            tail = max(self._done, start - _LONGEST)
            self._may_form_tag = _UNFINISHED.search(self._text, tail, start) is not None
        self._pieces.append(self._text[self._done : start])
        self._done = end
        return end

    def _after(self, mark: str, start: int) -> int | None:
        """Give the position after the next `mark`, None if there is none."""
        found = self._next.get(mark, -1)
        if found < start:
            found = self._text.find(mark, start)
            self._next[mark] = found = found if found >= 0 else len(self._text)
        return found + len(mark) if found < len(self._text) else None

    def _comment(self, opening: re.Match[str]) -> int:
        # Two back, for `<!-->` is a whole comment. An unclosed one hides nothing: its opening goes.
        end = self._after("-->", opening.end() - 2)
        return self._drop(opening.start(), end or opening.end())

    def _doctype(self, opening: re.Match[str]) -> int:
        end = self._after(">", opening.end())
        return self._drop(opening.start(), end) if end else self._bogus_comment(opening)

    def _cdata(self, opening: re.Match[str]) -> int:
        """Drop the marks and keep the character data; the next pass reads it."""
        self._drop(opening.start(), opening.end())
        end = self._after("]]>", opening.end())
        return self._drop(end - len("]]>"), end) if end else opening.end()

    def _instruction(self, opening: re.Match[str]) -> int:
        end = self._after("?>", opening.end())
        return self._drop(opening.start(), end) if end else self._bogus_comment(opening)

    def _bogus_comment(self, opening: re.Match[str]) -> int:
        """Keep what a parser takes for a comment (`</3`, `<!here>`)."""
        if opening.start() >= self._parsed:
            self._parsed = self._after(">", opening.start()) or len(self._text)
        return opening.start() + 1

    def _tag(self, opening: re.Match[str]) -> int:
        name = opening["name"].lower()
        if name not in self._elements:
            return self._unknown_tag(opening)
        after = opening.end()
        if name in _CODE and opening["end"] and self._may_form_tag:
            # Its start tag may have been put together; the next pass sees them both.
            return after
        if self._open_ended:
            return self._cut_off_tag(opening, name)
        if name not in _CODE and _COMPARED.match(self._text, after) and self._after(">", after):
            # `a <b and List<int>`: to a parser all of it is one tag; its name gone, none of it is.
            return self._drop(opening.start(), after)
        end, _ = self._end_of_tag(after)
        if end is None:
            return self._cut_off_tag(opening, name)
        if name in _FOREIGN:
            self._count_foreign(opening, end)
        if name in _CODE and not opening["end"]:
            end = self._end_of_code(name, end)
        return self._drop(opening.start(), end)

    def _count_foreign(self, opening: re.Match[str], end: int) -> None:
        if opening["end"]:
            self._foreign = max(0, self._foreign - 1)
        elif self._text[end - 2] != "/":
            self._foreign += 1
        self._elements = _ELEMENTS_AFTER_FOREIGN if self._foreign else _ELEMENTS

    def _unknown_tag(self, opening: re.Match[str]) -> int:
        """Keep the tag as text unless a parser would see an event handler in it."""
        if self._may_handle_events and opening.start() >= self._parsed:
            name = _REST_OF_NAME.match(self._text, opening.end())
            end, handler = self._end_of_tag(name.end() if name else opening.end())
            self._parsed = end or len(self._text)
            if handler:
                return self._drop(opening.start(), self._parsed)
        return opening.start() + 1

    def _cut_off_tag(self, opening: re.Match[str], name: str) -> int:
        """Drop a tag that the text ends in: whatever stands next to the text would complete it.

        With attributes it reaches to the end of the text; without, the words behind it stay. In
        `a <b and c` the `<` is a comparison, and a space keeps it one.
        """
        start, after = opening.span()
        if not self._open_ended and self._after(">", after) is not None:  # in quotes, each of them
            return self._drop(start, len(self._text))
        self._open_ended = True
        if opening["end"]:
            return self._drop(start, after)
        if (
            name in _VARIABLES
            and _OPERAND.search(self._text, max(self._done, start - 2), start)
            and not _VALUE_NEXT.match(self._text, after)
        ):
            self._pieces += (self._text[self._done : start + 1], " ")
            self._done = start + 1
            return after
        if self._after("=", after):
            return self._drop(start, len(self._text))
        while self._text.startswith("/", after):
            after += 1
        return self._drop(start, after)

    def _end_of_tag(self, position: int) -> tuple[int | None, bool]:
        """Step through attributes: the position after `>`, if any, and whether one is a handler."""
        handler = False
        while attribute := _ATTRIBUTE.match(self._text, position):
            handler = handler or attribute["handler"] is not None
            position = attribute.end()
        return (position + 1 if position < len(self._text) else None), handler

    def _end_of_code(self, name: str, start: int) -> int:
        """Give the position after a script or style whose start tag ends at `start`.

        It carries what comes before its end tag. Where no end tag follows, or the next start tag
        comes first, it carries nothing, and the words behind it stay.
        """
        if name in self._endless:
            return start
        tag = _TAGS_OF[name].search(self._text, start)
        if tag is None:
            self._endless.add(name)
        if tag is None or not tag["end"]:
            return start
        end = self._end_of_tag(tag.end())[0]
        if end is None:
            end = len(self._text) if self._after(">", tag.end()) else tag.end()
        return end


def strip_markup(text: str) -> str:
    """Drop, in one pass, HTML's tags, comments and declarations, and scripts and styles whole."""
    return _Pass(text).run() if "<" in text else text


def strip_script_uris(text: str) -> str:
    """Drop, in one pass, `javascript:`, `vbscript:` and `data:text/html` URIs.

    A URI runs to the next white space, and begins with the first of the schemes that are spliced
    into it. Character references are read, not decoded.
    """
    if not (_BARE_COLON.search(text) or _REFERENCE.search(text)):
        return text
    pieces: list[str] = []
    done = 0
    for start, end in _script_uris(text):
        pieces.append(text[done:start])
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def _script_uris(text: str) -> Iterator[tuple[int, int]]:
    """Give where each word that holds a script URI has its first scheme, and where it ends."""

    def end_of_word() -> int:
        blank = _BLANK.search(text, last)
        return blank.start() if blank else len(text)

    first = last = 0
    runs = False
    for scheme in _SCHEME.finditer(text):
        if _BLANK.search(text, last, scheme.start()) or not last:
            if runs:
                yield first, end_of_word()
            first, runs = scheme.start(), False
        runs = runs or scheme.start() == last > 0 or _begins_uri(scheme)
        last = scheme.end()
    if runs:
        yield first, end_of_word()


def _begins_uri(scheme: re.Match[str]) -> bool:
    """Tell a URI from words, such as `JavaScript: The Good Parts` and `metadata:text/html`."""
    text, (start, end) = scheme.string, scheme.span()
    if end == len(text) or text[end].isspace():
        return False
    return scheme["data"] is None or not (
        _OF_LONGER_NAME.match(text, end) or (start and _OF_LONGER_NAME.match(text, start - 1))
    )


def hides_script_uri(text: str) -> bool:
    """Tell whether character references, decoded once or twice, spell a script URI.

    For a text that `strip_script_uris` leaves as it is: it reads references as anybody writes them,
    and does not see one whose own digits are references (``&#&#49;06;``).
    """
    if "&" not in text:
        return False
    once = html.unescape(text)
    return any(strip_script_uris(read) != read for read in {once, html.unescape(once)})


def join_split(text: str) -> str:
    """Drop control characters inside of element names and script schemes, to unmask them."""

    def join_name(found: re.Match[str]) -> str:
        joined = found[0].translate(_DELETE_CONTROLS)
        return joined if joined.lstrip("</").lower() in _ELEMENTS_AFTER_FOREIGN else found[0]

    named = _SPLIT_NAME.sub(join_name, text)
    pieces: list[str] = []
    done = 0
    for scheme in _SCHEME.finditer(named):
        end = scheme.end()
        after = _CONTROLS.match(named, end)
        pieces += named[done : scheme.start()], scheme[0].translate(_DELETE_CONTROLS)
        done = after.end() if after else end
    pieces.append(named[done:])
    return "".join(pieces)


def knows_element(text: str) -> bool:
    """Tell whether nh3's parser finds an element of HTML, SVG or MathML in the text.

    Its time may grow with the square of the text's length (end tags without start tags).
    """
    # It escapes the text's own `<` and drops the tags that it does not know: what is left is a tag.
    return bool(_TAG_LIKE.search(text)) and "<" in _SECOND_READER.clean(text)
