"""Makes text from a server safe to show: masks secrets, and escapes control characters. Pure.

A server may echo a secret in any form: escaped as JSON, a URL or HTML, in base64, in upper or lower
case, cut, or broken over lines. So a text is searched for runs of the secret, that is for any 16
consecutive characters of it, after escapes and white space are removed. Only the places of these
runs in the original text are masked.
"""

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

MASK = "***"
RUN = 16  # this many consecutive characters of a secret are always masked
GRAM = 8  # characters looked up at every ninth place of a text: each run contains such a place
STRIDE = RUN - GRAM + 1
SHORT = 8  # a shorter secret is masked only as a whole word, as it may be part of other words
LEAST = 4  # a shorter secret is not masked
BASE64_BYTES = 8 * 1024  # a longer secret is not searched for in base64
MOST_COMPARED = 1 << 22  # characters times characters: beyond that a set is faster than a search
MOST_PLACES = 16  # of the same characters in a secret that are compared
LEAP = 64  # characters compared at a time
TIMES_ESCAPED = 2  # in JSON in JSON, or in a URL in HTML
BETWEEN = "\ud800"  # separates the forms of a secret; no text contains it

# control characters, those that change the direction of writing, invisible ones and line ends: all
# characters that a terminal does not show as they were sent
STEERING = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# their first bytes in UTF-8: a search for bytes takes a tenth of the time
_STEERING_BYTES = (
    *(b"\x7f", b"\xc2", b"\xcd\x8f", b"\xd8\x9c", b"\xe1", b"\xe2\x80", b"\xe2\x81"),
    *(b"\xe3\x85\xa4", b"\xef\xbb\xbf", b"\xef\xbe\xa0", b"\xef\xbf", b"\xf0\x9b", b"\xf0\x9d"),
    b"\xf3\xa0",
)
# the three ways to write a character as something else, by the character that begins an escape
_NOTATIONS = {
    "\\": (
        r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
        r"|\\u(?P<json>[0-9a-fA-F]{4})"
        r"|\\x(?P<python>[0-9a-fA-F]{2})"
        r"|\\U(?P<long>000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})"
        r"|\\(?P<single>[^uxU])"
    ),
    "%": r"(?P<url>(?:%[0-9a-fA-F]{2})+)",
    "&": r"(?P<html>&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,7});)",
}
_BLANKS = r"(?P<blank>\s+)"
_BLANK = re.compile(_BLANKS)
_HEXADECIMAL = re.compile("[0-9a-f-]{0,64}")
_SINGLE = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}


# ---- control characters --------------------------------------------------------------------------


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return a text with escapes such as ``\x1b`` for all control characters.

    Args:
        text: any text.
        lines: whether its line ends are kept.
    """
    if text.isascii() and text.isprintable():
        return text
    return _steering(lines=lines).sub(lambda one: one[0].encode("unicode_escape").decode(), text)


def printable_json(text: str) -> str:
    r"""Return equal JSON, with escapes such as ``\u009b`` for all control characters."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _steering(lines=True).sub(
        lambda one: json.dumps(one[0])[1:-1].replace("\x7f", r"\u007f"), text
    )


def printable_line(line: bytes) -> bytes:
    """Return an equal line of JSON in UTF-8, with escapes for all control characters."""
    if line.isascii() and b"\x7f" not in line:
        return line
    if not any(one in line for one in _STEERING_BYTES):
        return line
    return printable_json(line.decode()).encode()


@cache  # compiled when a text has such characters: most processes see none
def _steering(*, lines: bool) -> re.Pattern[str]:
    """Return what finds control characters; with `lines` it leaves line ends alone."""
    return re.compile(f"(?!\n)[{STEERING}]" if lines else f"[{STEERING}]")


# ---- secrets -------------------------------------------------------------------------------------


class Needle:
    """Masks one secret in texts. It contains the secret."""

    __slots__ = ("_hay", "_itself", "_marked", "_wholes", "_word")

    def __init__(self, secret: str) -> None:
        folded = _fold(_unblanked(secret))
        forms = {folded: None}
        if len(folded) >= SHORT:
            forms |= dict.fromkeys(_fold(_unblanked(form)) for form in _forms(secret))
        self._word = _word(secret) if LEAST <= len(folded) < SHORT else None
        self._wholes = [form for form in forms if SHORT <= len(form) < RUN]
        self._itself = folded
        self._hay = BETWEEN.join(["", *(form for form in forms if len(form) >= RUN), ""])
        self._marked = _has_marks(secret)

    def scrub(self, text: str) -> str:
        """Return a text with ``***`` instead of each run of the secret."""
        if self._word is not None:
            return self._word.sub(MASK, text)
        if len(self._hay) <= len(BETWEEN) and not self._wholes:
            return text
        if _HEXADECIMAL.fullmatch(text) and not self._touches(text):
            return text
        spans = [*self._spans(text)]
        return _masked(text, spans) if spans else text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the places of runs of the secret in a text: as is, unescaped, unescaped twice."""
        readings: dict[str, list[tuple[str, re.Pattern[str]]]] = {text: []}
        yield from self._spans_in(_unblanked(text), [(text, _BLANK)])
        if not _has_marks(text):
            return
        searched = [_any_escape()]
        if self._marked:
            # where a part of the secret looks like an escape of one notation, and the secret was
            # escaped in another, only undoing the other one alone gives the secret back
            searched += _escapes().values()
        for _ in range(TIMES_ESCAPED):
            readings = {
                plain: [*steps, (source, escapes)]
                for source, steps in readings.items()
                if _has_marks(source)
                for escapes in searched
                if (plain := escapes.sub(_meaning, source)) != source
            }
            for plain, steps in readings.items():
                yield from self._spans_in(plain, steps)

    def _spans_in(
        self, plain: str, steps: Sequence[tuple[str, re.Pattern[str]]]
    ) -> Iterator[tuple[int, int]]:
        """Yield the places of the runs of an unescaped text in the original text."""
        if found := [*self._found(_fold(plain))]:
            views = [_view(source, escapes) for source, escapes in steps]
            yield from (_original(views, span) for span in found)

    def _touches(self, text: str) -> bool:
        """Return whether a short hexadecimal text may contain a run of the secret.

        Most request ids are such texts, one per response; they need no search for other forms.
        """
        hay = self._hay if "-" in text else self._itself
        plain = text.replace("-", "+")
        places = range(0, len(plain) - GRAM + 1, STRIDE)
        return any(whole in plain for whole in self._wholes) or any(
            plain[at : at + GRAM] in hay for at in places
        )

    def _found(self, plain: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of the secret, or of runs of it, in a folded text."""
        for whole in self._wholes:
            at = plain.find(whole)
            while at >= 0:
                yield at, at + len(whole)
                at = plain.find(whole, at + len(whole))
        hay = self._hay
        known: str | set[str] = hay
        if len(plain) * len(hay) > MOST_COMPARED:
            known = {hay[at : at + GRAM] for at in range(len(hay) - GRAM + 1)}
        at, last = 0, len(plain) - GRAM
        while at <= last:
            if plain[at : at + GRAM] not in known:
                at += STRIDE
                continue
            begin, end = self._run(plain, at)
            if end - begin >= RUN:
                yield begin, end
            at = max(at + STRIDE, end - GRAM + 1)

    def _run(self, plain: str, at: int) -> tuple[int, int]:
        """Return the longest span around a place where a text equals the secret."""
        hay, best = self._hay, (at, at)
        place = hay.find(plain[at : at + GRAM])
        for _ in range(MOST_PLACES):
            if place < 0:
                break
            before, behind = 0, GRAM
            while before < at and plain[at - before - 1] == hay[place - before - 1]:
                before += 1
            while (
                at + behind < len(plain)
                and plain[at + behind : at + behind + LEAP]
                == hay[place + behind : place + behind + LEAP]
            ):
                behind = min(behind + LEAP, len(plain) - at)
            while at + behind < len(plain) and plain[at + behind] == hay[place + behind]:
                behind += 1
            best = max(best, (at - before, at + behind), key=lambda run: run[1] - run[0])
            place = hay.find(plain[at : at + GRAM], place + 1)
        return best


@cache  # compiled when a text is searched: most processes search none
def _any_escape() -> re.Pattern[str]:
    return re.compile("|".join([*_NOTATIONS.values(), _BLANKS]), re.DOTALL)


@cache
def _escapes() -> Mapping[str, re.Pattern[str]]:
    return {
        mark: re.compile(f"{notation}|{_BLANKS}", re.DOTALL)
        for mark, notation in _NOTATIONS.items()
    }


def _fold(text: str) -> str:
    """Return a text in lower case, with both alphabets of base64 unified; the length is kept."""
    text = text.lower() if text.isascii() else re.sub("[A-Z]+", lambda one: one[0].lower(), text)
    return text.replace("-", "+").replace("_", "/")


def _unblanked(text: str) -> str:
    return "".join(text.split())


def _word(secret: str) -> re.Pattern[str]:
    import html  # a millisecond, for its table of names

    forms = {
        *(secret, html.escape(secret), quote(secret, safe="", errors="surrogatepass")),
        *(json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]),
        *(
            secret.encode("ascii", how).decode()
            for how in ("backslashreplace", "xmlcharrefreplace")
        ),
        secret.encode("unicode_escape").decode(),
    }
    shown = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<![^\W_])(?:{shown})(?![^\W_])")


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret in base64."""
    data = secret.encode("utf-8", "surrogatepass")
    if len(data) <= BASE64_BYTES:
        for before, changed in ((0, 0), (1, 2), (2, 3)):
            text = base64.b64encode(bytes(before) + data).decode()
            # the part that does not depend on the bytes before and after the secret
            yield text[changed : (before + len(data)) * 8 // 6]


def _has_marks(text: str) -> bool:
    """Return whether a text has a character that starts an escape."""
    return any(mark in text for mark in _NOTATIONS)


class _View(NamedTuple):
    """Maps the pieces of a text without escapes and white space to the original text.

    The piece that starts at `begins[i]` was at `starts[i]` to `ends[i]`. A piece of the same length
    as its original was not escaped.
    """

    size: int
    begins: list[int]
    starts: list[int]
    ends: list[int]

    def at(self, index: int) -> tuple[int, int]:
        """Return the span of a character in the original."""
        piece = bisect_right(self.begins, index) - 1
        begin, start, end = self.begins[piece], self.starts[piece], self.ends[piece]
        after = self.begins[piece + 1] if piece + 1 < len(self.begins) else self.size
        if end - start != after - begin:
            return start, end
        return start + index - begin, start + index - begin + 1


def _original(views: Sequence[_View], span: tuple[int, int]) -> tuple[int, int]:
    """Return the span in the original text, through several views."""
    for view in reversed(views):
        span = view.at(span[0])[0], view.at(span[1] - 1)[1]
    return span


def _meaning(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if kind == "blank":
        return ""
    if kind == "single":
        meant = _SINGLE.get(found[kind], found[kind])
    else:
        meant = "".join(one for one, _ in _meant(found))
    return "" if meant.isspace() else _unblanked(meant)


def _view(text: str, escapes: re.Pattern[str]) -> _View:
    """Return the places of the pieces of a text whose escapes are undone."""
    begins: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    size = at = 0

    def add(piece: str, start: int, end: int) -> None:
        nonlocal size
        if piece:
            begins.append(size)
            starts.append(start)
            ends.append(end)
            size += len(piece)

    for found in escapes.finditer(text):
        add(text[at : found.start()], at, found.start())
        at = found.start()
        for piece, length in _meant(found):
            add("" if piece.isspace() else piece, at, at + length)
            at += length
        at = found.end()
    add(text[at:], at, len(text))
    return _View(size, begins, starts, ends)


def _meant(found: re.Match[str]) -> Iterator[tuple[str, int]]:
    """Yield the characters that an escape stands for, each with the length of its escape."""
    kind, said = found.lastgroup, found[0]
    if kind == "url":
        data = unquote_to_bytes(said)
        try:
            characters = data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            characters = data.decode("latin-1")
            yield from ((one, 3) for one in characters)
        else:
            yield from ((one, 3 * len(one.encode("utf-8", "surrogatepass"))) for one in characters)
    elif kind == "pair":
        yield json.loads(f'"{said}"'), len(said)
    elif kind in {"json", "python", "long"}:
        yield chr(int(found[kind], 16)), len(said)
    elif kind == "single":
        yield _SINGLE.get(found[kind], found[kind]), len(said)
    elif kind == "html":
        import html

        yield html.unescape(said), len(said)


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    """Return a text with ``***`` for each of these spans; overlapping ones become one."""
    shown, at = [], 0
    spans.sort()
    begin, end = spans[0]
    for start, stop in [*spans[1:], (len(text) + 1, len(text) + 1)]:
        if start < end:
            end = max(end, stop)
            continue
        shown += [text[at:begin], MASK]
        at, begin, end = end, start, stop
    return "".join([*shown, text[at:]])
